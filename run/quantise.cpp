#include "run/quantise.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.hpp"

namespace dsa::run {
namespace {

constexpr double largest_e4m3 = 448;

std::vector<double> rows_of(const Parameter& p, Index begin, Index end) {
  std::vector<double> x(static_cast<std::size_t>((end - begin) * p.columns()));
  read_rows(p, begin, end, x.data());
  return x;
}

/// The largest magnitude of a block of `rows` x `columns` numbers, `stride` numbers a row.
double largest_of(const double* x, Index rows, Index columns, Index stride) {
  double largest = 0;
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) largest = std::max(largest, std::abs(x[r * stride + c]));
  return largest;
}

bool keeps_codes(const Parameter& p, const BlockFormat& blocks) {
  return p.dtype == Dtype::f8_e4m3 && p.scale_inv != nullptr && p.block == blocks.edge &&
         p.scale_row == 0;
}

[[noreturn]] void fail(const Parameter& p, Index row, Index column, const std::string& sentence) {
  throw Error("tensor " + p.name + ", row " + std::to_string(row) + ", column " +
              std::to_string(column) + ": " + sentence);
}

/// What the number should have become; `scale` is 1 except in FP8.
double intended(Dtype dtype, double x, double scale) {
  return dtype == Dtype::f8_e4m3 ? round_to(dtype, x / scale) * scale : round_to(dtype, x);
}

/// Each block scale of the rows is the one that the block's numbers ask for.
void check_scales(const Parameter& was, const Parameter& is, Index begin, Index end,
                  const BlockFormat& blocks, const std::vector<double>& x) {
  const Index columns = was.columns(), edge = blocks.edge;
  for (Index r = begin; r < end; r += edge)
    for (Index c = 0; c < columns; c += edge) {
      const Index at = r / edge * blocks.count(columns) + c / edge;
      const double largest =
          largest_of(x.data() + (r - begin) * columns + c, std::min(edge, end - r),
                     std::min(edge, columns - c), columns);
      const float expected =
          keeps_codes(was, blocks) ? was.scale_inv[at] : block_scale(largest, blocks.ue8m0);
      if (is.scale_inv[at] != expected)
        fail(is, r, c,
             "the block scale read back is " + std::to_string(is.scale_inv[at]) + ", expected " +
                 std::to_string(expected));
    }
}

}  // namespace

float block_scale(double largest, bool ue8m0) {
  if (largest == 0) return 1;
  // Below the smallest normal float a scale would lose digits; codes lose them instead.
  const double scale = std::max(largest / largest_e4m3, 0x1p-126);
  if (!ue8m0) return static_cast<float>(scale);
  int exponent = 0;
  const double fraction = std::frexp(scale, &exponent);  // scale = fraction 2^exponent, in [1/2, 1)
  return std::ldexp(1.0f, fraction == 0.5 ? exponent - 1 : exponent);
}

void narrow_rows(const Parameter& p, Index begin, Index end, Dtype to, std::byte* out) {
  if (p.dtype == to) {
    const Index row = p.columns() * bits_of(to) / 8;
    std::memcpy(out, p.data + begin * row, static_cast<std::size_t>((end - begin) * row));
    return;
  }
  const auto x = rows_of(p, begin, end);
  encode(to, x.data(), static_cast<Index>(x.size()), out);
}

void quantise_rows(const Parameter& p, Index begin, Index end, const BlockFormat& blocks,
                   std::byte* out, float* scales) {
  const Index columns = p.columns(), edge = blocks.edge, across = blocks.count(columns);
  if (keeps_codes(p, blocks)) {
    std::memcpy(out, p.data + begin * columns, static_cast<std::size_t>((end - begin) * columns));
    std::copy(p.scale_inv + begin / edge * across, p.scale_inv + blocks.count(end) * across,
              scales + begin / edge * across);
    return;
  }
  auto x = rows_of(p, begin, end);
  for (Index r = begin; r < end; r += edge)
    for (Index c = 0; c < columns; c += edge) {
      const Index rows = std::min(edge, end - r), width = std::min(edge, columns - c);
      double* block = x.data() + (r - begin) * columns + c;
      const float scale = block_scale(largest_of(block, rows, width, columns), blocks.ue8m0);
      scales[r / edge * across + c / edge] = scale;
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < width; ++j) block[i * columns + j] /= static_cast<double>(scale);
    }
  encode(Dtype::f8_e4m3, x.data(), static_cast<Index>(x.size()), out);
}

void check_rows(const Parameter& was, const Parameter& is, Index begin, Index end,
                const BlockFormat& blocks) {
  const Index columns = was.columns(), across = blocks.count(columns);
  const auto x = rows_of(was, begin, end);
  const bool scaled = is.dtype == Dtype::f8_e4m3;
  if (scaled) check_scales(was, is, begin, end, blocks, x);
  std::vector<double> y(x.size());
  const Index row_bytes = columns * bits_of(is.dtype) / 8;
  if (scaled)
    read_rows(is, begin, end, y.data());
  else  // an overflow is reported below, with the number that caused it
    decode(is.dtype, is.data + begin * row_bytes, (end - begin) * columns, y.data());
  for (Index r = begin; r < end; ++r)
    for (Index c = 0; c < columns; ++c) {
      const auto i = static_cast<std::size_t>((r - begin) * columns + c);
      const double scale =
          scaled ? static_cast<double>(is.scale_inv[r / blocks.edge * across + c / blocks.edge])
                 : 1;
      const double expected = intended(is.dtype, x[i], scale);
      if (!std::isfinite(expected))
        fail(was, r, c,
             std::to_string(x[i]) + " is beyond the largest " + std::string(name_of(is.dtype)) +
                 "; choose a wider --dtype");
      if (!(y[i] == expected))
        fail(is, r, c,
             "read back as " + std::to_string(y[i]) + ", expected " + std::to_string(expected));
    }
}

}  // namespace dsa::run
