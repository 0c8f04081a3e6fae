#include "optimized/cpu/ops/linear.hpp"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include "core/failure.hpp"
#include "optimized/cpu/kernels/convert.hpp"
#include "optimized/cpu/kernels/linear.hpp"
#include "optimized/cpu/ops/products.hpp"

namespace dsa::cpu {
namespace {

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

Index panels_of(Index out) { return ceil_div(out, linear_panel); }

Index packed_words(Index out, Index in, Dtype dtype) {
  return panels_of(out) * linear_panel * linear_words(dtype == Dtype::bf16, in);
}

/// Zeros. Large matrices on large pages: a decoding step reads all of them once, and would spend
/// its time looking up addresses.
std::shared_ptr<std::byte> allocate(Index bytes) {
  constexpr Index page = Index{1} << 21;
  const auto alignment = std::align_val_t(bytes >= page ? page : 64);
  const auto size = static_cast<std::size_t>(std::max<Index>(bytes, 1));
  std::byte* data = static_cast<std::byte*>(::operator new(size, alignment));
  if (bytes >= page) madvise(data, size, MADV_HUGEPAGE);
  std::memset(data, 0, size);
  return {data, [alignment](std::byte* p) { ::operator delete(p, alignment); }};
}

/// One row of w to its place.
void pack_row(Cpu cpu, std::byte* packed, Index row, const float* w, Index in, Dtype dtype) {
  const Index half = row / linear_half * linear_half, lane = row % linear_half;
  std::byte* const first = packed + 4 * (half * linear_words(dtype == Dtype::bf16, in) + lane);
  if (dtype == Dtype::f32) {
    for (Index i = 0; i < in; ++i) std::memcpy(first + i * 4 * linear_half, w + i, 4);
    return;
  }
  std::vector<std::uint16_t> narrow(static_cast<std::size_t>(in));
  narrow_row_of[int(cpu.tier)](narrow.data(), w, in);
  for (Index i = 0; i < in; ++i)
    std::memcpy(first + i / 2 * 4 * linear_half + i % 2 * 2, narrow.data() + i, 2);
}

/// Packs `out` rows; read(o, n, to) fetches n of them from o on.
template <class Read>
std::shared_ptr<std::byte> pack(Cpu cpu, Index out, Index in, Dtype dtype, Read read) {
  if (!(dtype == Dtype::f32 || dtype == Dtype::bf16))
    throw Error("a packed matrix is F32 or BF16, not " + std::string(name_of(dtype)));
  auto packed = allocate(4 * packed_words(out, in, dtype));
  Failure failure;
#pragma omp parallel for schedule(static)
  for (Index o = 0; o < out; o += linear_panel)
    failure.guard([&] {
      const Index n = std::min(linear_panel, out - o);
      std::vector<float> rows(static_cast<std::size_t>(n * in));
      read(o, n, rows.data());
      for (Index r = 0; r < n; ++r)
        pack_row(cpu, packed.get(), o + r, rows.data() + r * in, in, dtype);
    });
  failure.rethrow();
  return packed;
}

Index out_of(const Product& p) { return p.out > 0 ? p.out : p.w->out(); }

/// Rows of x are multiplied in blocks of at most linear_rows, of nearly the same size.
Index blocks_of(const Product& p) { return ceil_div(p.rows, linear_rows); }
Index first_row(const Product& p, Index block) { return p.rows * block / blocks_of(p); }
Index rows_of(const Product& p, Index block) {
  return first_row(p, block + 1) - first_row(p, block);
}

/// Work of one panel for a block, in rows: reading the panel costs what about 8 rows do.
Index cost_of(const Product& p, Index block) { return rows_of(p, block) + 8; }

Index cost_of(const Product& p) {
  Index cost = 0;
  for (Index b = 0; b < blocks_of(p); ++b) cost += cost_of(p, b) * panels_of(out_of(p));
  return cost;
}

LinearPiece piece_of(const Product& p, Index block, Index first, Index last, std::byte* scratch) {
  const bool is_bf16 = p.w->dtype() == Dtype::bf16;
  const Index row = first_row(p, block);
  LinearPiece piece{};
  piece.bf16 = is_bf16;
  const Index before = p.which ? 0 : row * (p.by_column ? 1 : p.x_stride);  // elements
  piece.x = static_cast<const std::byte*>(p.x) + before * (is_bf16 ? 2 : 4);
  piece.x_stride = p.x_stride;
  piece.by_column = p.by_column;
  piece.in_place = p.in_place && !is_bf16;
  piece.which = p.which ? p.which + row : nullptr;
  piece.rows = rows_of(p, block);
  piece.w = reinterpret_cast<const std::uint32_t*>(p.w->packed());
  piece.in = p.w->in();
  piece.out = out_of(p);
  piece.first_panel = first;
  piece.last_panel = last;
  piece.y = p.y ? p.y + row * p.y_stride : nullptr;
  piece.y_bf16 = p.y_bf16 ? &p.y_bf16[row * p.y_stride].bits : nullptr;
  piece.y_stride = p.y_stride;
  piece.bias = p.bias;
  piece.add = p.add;
  piece.scratch = scratch;
  return piece;
}

}  // namespace

Matrix::Matrix(Cpu cpu, const Parameter& p, Index begin, Index end, Dtype dtype)
    : out_(end - begin), in_(p.columns()), dtype_(dtype) {
  packed_ = pack(cpu, out_, in_, dtype,
                 [&](Index o, Index n, float* to) { read_rows(p, begin + o, begin + o + n, to); });
}

Matrix::Matrix(Cpu cpu, const Parameter& above, const Parameter& below, Dtype dtype)
    : out_(above.rows() + below.rows()), in_(above.columns()), dtype_(dtype) {
  if (!(below.columns() == in_))
    throw Error("tensors " + above.name + " and " + below.name + " have " + std::to_string(in_) +
                " and " + std::to_string(below.columns()) + " columns, expected the same");
  packed_ = pack(cpu, out_, in_, dtype, [&](Index o, Index n, float* to) {
    const Index cut = std::clamp(above.rows(), o, o + n);
    if (o < cut) read_rows(above, o, cut, to);
    if (cut < o + n)
      read_rows(below, cut - above.rows(), o + n - above.rows(), to + (cut - o) * in_);
  });
}

Matrix::Matrix(Cpu cpu, View<const float, 2> w, Dtype dtype)
    : out_(w.shape[0]), in_(w.shape[1]), dtype_(dtype) {
  packed_ = pack(cpu, out_, in_, dtype,
                 [&](Index o, Index n, float* to) { std::copy_n(w.data + o * in_, n * in_, to); });
}

Matrix::Matrix(Index out, Index in, Dtype dtype)
    : out_(out), in_(in), dtype_(dtype), packed_(allocate(bytes_of(out, in, dtype))) {}

Matrix::Matrix(std::byte* memory, Index out, Index in, Dtype dtype)
    : out_(out), in_(in), dtype_(dtype), packed_(std::shared_ptr<std::byte>(), memory) {}

Index Matrix::bytes_of(Index out, Index in, Dtype dtype) {
  return 4 * packed_words(out, in, dtype);
}

Index Matrix::bytes() const { return 4 * packed_words(out_, in_, dtype_); }

Index linear_scratch(Index in) { return linear_piece_scratch(in); }

/// All panels of all blocks of rows stand in a line, which is cut into as many pieces of equal
/// cost as there are threads: a thread sorts its x once, and nobody waits.
void multiply(Cpu cpu, std::span<const Product> products, Scratch scratch) {
  LinearKernel* const kernel = linear_piece_of[int(cpu.tier)];
  Index total = 0;
  for (const Product& p : products) total += cost_of(p);
#pragma omp parallel
  {
    const Index thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const Index begin = total * thread / threads, end = total * (thread + 1) / threads;
    Index at = 0;  // cost of everything before this block
    for (const Product& p : products)
      for (Index b = 0; b < blocks_of(p); ++b) {
        const Index panels = panels_of(out_of(p)), cost = cost_of(p, b);
        const Index first = std::clamp(ceil_div(begin - at, cost), Index{0}, panels);
        const Index last = std::clamp(ceil_div(end - at, cost), Index{0}, panels);
        if (first < last)
          kernel(piece_of(p, b, first, last, scratch.of_thread(static_cast<int>(thread))));
        at += cost * panels;
      }
  }
}

template <class Y, class X>
void linear(Cpu cpu, Strided<Y> y, Strided<const X> x, const Matrix& w, View<const float, 1> bias,
            Scratch scratch) {
  constexpr Dtype dtype = std::is_same_v<X, float> ? Dtype::f32 : Dtype::bf16;
  if (!(w.dtype() == dtype))
    throw Error("x is " + std::string(name_of(dtype)) + " and the matrix is " +
                std::string(name_of(w.dtype())) + "; expected the same");
  expect_shape("x", View<const X, 2>{x.data, {x.rows, x.columns}}, {x.rows, w.in()});
  expect_shape("y", View<Y, 2>{y.data, {y.rows, y.columns}}, {x.rows, w.out()});
  if (bias.data) expect_shape("bias", bias, {w.out()});
  Product p;
  p.x = x.data;
  p.x_stride = x.stride;
  p.rows = x.rows;
  p.w = &w;
  if constexpr (std::is_same_v<Y, float>)
    p.y = y.data;
  else
    p.y_bf16 = y.data;
  p.y_stride = y.stride;
  p.bias = bias.data;
  multiply(cpu, {&p, 1}, scratch);
}

template void linear(Cpu, Strided<float>, Strided<const float>, const Matrix&, View<const float, 1>,
                     Scratch);
template void linear(Cpu, Strided<bf16>, Strided<const float>, const Matrix&, View<const float, 1>,
                     Scratch);
template void linear(Cpu, Strided<float>, Strided<const bf16>, const Matrix&, View<const float, 1>,
                     Scratch);
template void linear(Cpu, Strided<bf16>, Strided<const bf16>, const Matrix&, View<const float, 1>,
                     Scratch);

}  // namespace dsa::cpu
