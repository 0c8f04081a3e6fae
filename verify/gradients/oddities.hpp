// verify/gradients/oddities.hpp — what a gradient beyond its limits is, where one look tells.
#pragma once

#include <string>
#include <vector>

#include "core/tensor.hpp"

namespace dsa::verify {

/// A gradient of shape (rows, columns), as it was found and as it should be, and how far apart
/// they may be.
struct Departure {
  const std::vector<double>&found, &wanted;
  Index rows, columns;
  double limit;
};

/// "has 2 numbers that are not finite, the first at (3, 5)", "is the transpose of what it should
/// be"; empty: nothing of that kind.
std::string oddity(const Departure&);

}  // namespace dsa::verify
