// optimized/cpu/ops/linear.hpp — y = x W^T + b, and a matrix laid out for it. Definition:
// reference/ops/linear.hpp.
//
// A Matrix is packed once, when a model is loaded. It is multiplied by a kernel of our own
// (docs/decisions/0008-matrix-products.md). Sums are fp32. A row of y is the same bits whatever the
// number of threads and the other rows.
#pragma once

#include <memory>

#include "core/weights.hpp"
#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

class Matrix {
 public:
  Matrix() = default;
  /// Rows [begin, end) of a parameter (out, in), rounded to `dtype`: f32 or bf16. An FP8 parameter
  /// is widened by its scales first.
  Matrix(Cpu, const Parameter&, Index begin, Index end, Dtype);
  /// All rows of one parameter, and below them all of another as wide.
  Matrix(Cpu, const Parameter& above, const Parameter& below, Dtype);
  /// From numbers: w (out, in).
  Matrix(Cpu, View<const float, 2> w, Dtype);
  /// Of zeros, for pack() of pack.hpp to fill; in memory of its own, or in bytes_of() bytes that
  /// outlive it and are not looked at.
  Matrix(Index out, Index in, Dtype);
  Matrix(std::byte* memory, Index out, Index in, Dtype);
  static Index bytes_of(Index out, Index in, Dtype);

  Index out() const { return out_; }
  Index in() const { return in_; }
  Dtype dtype() const { return dtype_; }
  Index bytes() const;
  const std::byte* packed() const { return packed_.get(); }
  std::byte* packed() { return packed_.get(); }

 private:
  Index out_ = 0, in_ = 0;
  Dtype dtype_ = Dtype::f32;
  std::shared_ptr<std::byte> packed_;
};

/// A matrix of rows at a distance: how a head's channels lie in (T, N, width).
template <class T>
struct Strided {
  T* data = nullptr;
  Index rows = 0, columns = 0, stride = 0;
  Strided() = default;
  Strided(T* d, Index r, Index c, Index s) : data(d), rows(r), columns(c), stride(s) {}
  template <class U>  // a View<float, 2> is a Strided<const float>, too
  Strided(View<U, 2> x) : Strided(x.data, x.shape[0], x.shape[1], x.shape[1]) {}
};

/// X: float with an f32 matrix, bf16 with a bf16 one (Error otherwise). Y: float or bf16.
/// `bias` (out) may be empty.
template <class Y, class X>
void linear(Cpu, Strided<Y> y,   // (T, out)  out
            Strided<const X> x,  // (T, in)
            const Matrix& w, View<const float, 1> bias, Scratch);
Index linear_scratch(Index in);

}  // namespace dsa::cpu
