// verify/kernels/given.hpp — a case of somebody's own inputs, with the answer and the bounds that
// the suite would give it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

/// Numbers that somebody gives, widened exactly.
struct GivenArray {
  std::vector<Index> shape;
  std::vector<double> values;
};

/// Error, one sentence: the op answers the suite's cases only, or not in this dtype; an input or a
/// scalar is missing or unknown; shapes contradict one another; a number is none of the type that a
/// kernel would read (it is never rounded to one); no finite bound follows.
Case given_case(const Op&, const std::string& dtype,
                const std::map<std::string, GivenArray>& inputs,
                const std::map<std::string, double>& scalars);

}  // namespace dsa::verify::kernels
