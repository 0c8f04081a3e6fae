// d_W sums over rows: x, laid out as a matrix, is what each column of d_y is multiplied with.
#include "optimized/cpu/ops/trained_linear.hpp"

#include <algorithm>
#include <vector>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/convert.hpp"
#include "optimized/cpu/ops/pack.hpp"
#include "optimized/cpu/ops/products.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {
namespace {

/// What kernels multiply: rows of floats, or of bf16.
struct Operand {
  const void* data = nullptr;
  Index stride = 0;  // elements
  Index size = 4;    // bytes of one

  const void* at(Index row, Index column) const {
    return static_cast<const std::byte*>(data) + (row * stride + column) * size;
  }
};

Dtype dtype_of(std::span<const LinearRows> all) {
  return all.empty() ? Dtype::f32 : all.front().w->dtype();
}

/// x as it is, or its bf16 in `memory`, of operand_bytes().
Operand operand(Cpu cpu, Strided<const float> x, Dtype dtype, std::byte* memory) {
  if (dtype == Dtype::f32) return {x.data, x.stride, 4};
  auto* const narrow = reinterpret_cast<std::uint16_t*>(memory);
  parallel_for(x.rows, x.columns / 4, [&](Index t) {
    narrow_row_of[int(cpu.tier)](narrow + t * x.columns, x.data + t * x.stride, x.columns);
  });
  return {narrow, x.columns, 2};
}
Index operand_bytes(Strided<const float> x, Dtype dtype) {
  return dtype == Dtype::f32 ? 0 : 2 * x.rows * x.columns;
}

void run(Cpu cpu, const std::vector<Product>& products, TrainMemory& memory) {
  Index widest = 0;
  for (const Product& p : products) widest = std::max(widest, p.w->in());
  multiply(cpu, products, memory.threads(linear_scratch(widest)));
}

void expect_rows(const char* name, Index rows, std::span<const LinearRows> all) {
  for (const LinearRows& r : all)
    if (!(0 <= r.begin && r.begin <= r.end && r.end <= rows))
      throw Error("a matrix multiplies rows " + std::to_string(r.begin) + " to " +
                  std::to_string(r.end) + " of " + name + ", expected a range within 0 to " +
                  std::to_string(rows));
}

void expect_matrix(const char* name, const Matrix* w, Index out, Index in) {
  if (!(w && w->out() == out && w->in() == in))
    throw Error(std::string(name) + " has shape " +
                to_string<2>(w ? Shape<2>{w->out(), w->in()} : Shape<2>{}) + ", expected " +
                to_string<2>({out, in}));
}

/// d_b[o] += sum_t d_y[t,o], a column after the other.
void add_columns(const LinearRows& r, Strided<const float> d_y) {
  parallel_for((d_y.columns + 15) / 16, (r.end - r.begin) * 4, [&](Index block) {
    const Index first = 16 * block, n = std::min<Index>(16, d_y.columns - first);
    float sums[16] = {};
    for (Index t = r.begin; t < r.end; ++t)
      for (Index o = 0; o < n; ++o) sums[o] += d_y.data[t * d_y.stride + first + o];
    for (Index o = 0; o < n; ++o) r.d_bias.data[first + o] += sums[o];
  });
}

/// What the way back to the weights multiplies: x is laid out as the matrix of sums over rows.
struct WayBack {
  Operand d_y;                        // (T, out), of which columns are read
  std::vector<Matrix> x;              // of every matrix: (in, its rows)
  std::vector<const LinearRows*> of;  // what is wanted

  WayBack(Cpu cpu, View<const float, 2> x_rows, Strided<const float> d_y_rows,
          std::span<const LinearRows> all, TrainMemory& memory) {
    const Dtype dtype = dtype_of(all);
    const Index in = x_rows.shape[1];
    for (const LinearRows& r : all)
      if (r.d_weight.data && r.begin < r.end) of.push_back(&r);
    Pieces needed;
    needed.take_bytes(operand_bytes(d_y_rows, dtype));
    for (const LinearRows* r : of)
      needed.take_bytes(Matrix::bytes_of(in, r->end - r->begin, dtype));
    Pieces pieces(memory.shared(needed.bytes()));
    d_y = operand(cpu, d_y_rows, dtype, pieces.take_bytes(operand_bytes(d_y_rows, dtype)));
    std::vector<Packing> packings;
    x.reserve(of.size());
    for (const LinearRows* r : of) {
      const Index rows = r->end - r->begin;
      x.emplace_back(pieces.take_bytes(Matrix::bytes_of(in, rows, dtype)), in, rows, dtype);
      packings.push_back({&x.back(), x_rows.data + r->begin * in, 1, in});
    }
    pack(cpu, packings);
  }
};

/// Every matrix times its rows of x, into y or added to it.
void multiply_rows(Cpu cpu, Strided<float> y, Strided<const float> x,
                   std::span<const LinearRows> all, const Matrix* LinearRows::*matrix, bool add,
                   TrainMemory& memory) {
  const Dtype dtype = dtype_of(all);
  const Operand from = operand(cpu, x, dtype, memory.shared(operand_bytes(x, dtype)));
  std::vector<Product> products;
  for (const LinearRows& r : all) {
    if (r.begin == r.end) continue;
    Product p;
    p.x = from.at(r.begin, 0);
    p.x_stride = from.stride;
    p.rows = r.end - r.begin;
    p.w = r.*matrix;
    p.y = y.data + r.begin * y.stride;
    p.y_stride = y.stride;
    if (matrix == &LinearRows::w) p.bias = r.bias.data;
    p.add = add;
    p.in_place = true;
    products.push_back(p);
  }
  run(cpu, products, memory);
}

}  // namespace

void linear_rows(Cpu cpu, Strided<float> y, View<const float, 2> x, std::span<const LinearRows> all,
                 bool add, TrainMemory& memory) {
  expect_rows("x", x.shape[0], all);
  for (const LinearRows& r : all) expect_matrix("w", r.w, y.columns, x.shape[1]);
  multiply_rows(cpu, y, x, all, &LinearRows::w, add, memory);
}

void linear_rows_backward_input(Cpu cpu, View<float, 2> d_x, Strided<const float> d_y,
                                std::span<const LinearRows> all, bool add, TrainMemory& memory) {
  expect_rows("d_y", d_y.rows, all);
  for (const LinearRows& r : all)
    expect_matrix("w_by_input", r.w_by_input, d_x.shape[1], d_y.columns);
  multiply_rows(cpu, d_x, d_y, all, &LinearRows::w_by_input, add, memory);
}

void linear_rows_backward_weight(Cpu cpu, View<const float, 2> x, Strided<const float> d_y,
                                 std::span<const LinearRows> all, TrainMemory& memory) {
  expect_rows("x", x.shape[0], all);
  const WayBack back(cpu, x, d_y, all, memory);
  std::vector<Product> products;
  for (std::size_t i = 0; i < back.of.size(); ++i) {
    const LinearRows& r = *back.of[i];
    expect_shape("d_weight", r.d_weight, {d_y.columns, x.shape[1]});
    Product p;
    p.x = back.d_y.at(r.begin, 0);
    p.x_stride = back.d_y.stride;
    p.by_column = true;
    p.rows = d_y.columns;
    p.w = &back.x[i];
    p.y = r.d_weight.data;
    p.y_stride = x.shape[1];
    p.add = true;
    products.push_back(p);
  }
  run(cpu, products, memory);
  for (const LinearRows& r : all) {
    if (!r.d_bias.data) continue;
    expect_shape("d_bias", r.d_bias, {d_y.columns});
    add_columns(r, d_y);
  }
}

}  // namespace dsa::cpu
