// verify/kernels/cases/pose.hpp — helpers of all files that pose cases.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/random.hpp"
#include "core/weights.hpp"
#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

using Poses = std::vector<Pose>;
using Extents = std::vector<std::pair<char, Index>>;

/// The operations of so many multiplications, and as many sums.
template <class... N>
double twice(N... extents) {
  return 2 * (1.0 * ... * static_cast<double>(extents));
}

/// "fp32" -> F32, "bf16" -> BF16, "fp8" -> F8_E4M3.
Dtype storage_of(const std::string& dtype);

/// A case with its name ("fp32-T5-C7-gaussian", then `tag` if there is one) and sizes.
Case start_case(std::string_view op, const std::string& dtype, const Extents&, Inputs,
                const std::string& tag = "");

/// Poisons the outputs, counts the bytes of all inputs and outputs where `bytes` is still 0, and
/// checks that every number allowed is one.
Case finished(Case);

/// The inputs of one case, one array after another: a function of the suite's seed, the op and the
/// name of the case, so that adding a case changes no other.
class Draw {
 public:
  Draw(const Case&, std::uint64_t seed);

  /// Dyadic or normal numbers, times `scale`, rounded to the type.
  Array numbers(Dtype, std::vector<Index> shape, double scale = 1);
  /// Powers of two in [1/2, 2], or any numbers of that range.
  Array scales(std::vector<Index> shape, bool powers_of_two);
  /// Uniform in [0, n).
  Index below(Index n);
  std::uint64_t bits() { return random_bits(seed_, next_++); }
  /// `k` different subscripts below n, ascending.
  std::vector<Index> subset(Index k, Index n);

 private:
  Inputs inputs_;
  std::uint64_t seed_, next_ = 0;
};

/// The numbers of an array, widened; and their magnitudes.
template <int Rank>
Tensor<double, Rank> widen(const Array& x) {
  Shape<Rank> shape{};
  std::copy(x.shape().begin(), x.shape().end(), shape.begin());
  Tensor<double, Rank> wide(shape);
  const std::vector<double> values = x.values();
  std::copy(values.begin(), values.end(), wide.begin());
  return wide;
}
template <int Rank>
Tensor<double, Rank> magnitude(Tensor<double, Rank> x) {
  for (double& value : x) value = std::abs(value);
  return x;
}
template <int Rank>
std::vector<double> list(const Tensor<double, Rank>& x) {
  return {x.begin(), x.end()};
}

/// An array as the reference takes weights. It must outlive the result.
Parameter parameter(const std::string& name, const Array&);

/// The answer and its bound for one output. If the inputs are dyadic and every operation is `exact`
/// on them, only the rounding of the output's type is allowed. Otherwise `allowed` is allowed as
/// well. (In fp32 the rounding is counted in `allowed`.)
void answer(Case&, const std::string& output, std::vector<double> want, std::vector<double> allowed,
            bool exact);

}  // namespace dsa::verify::kernels
