// verify/measure/singular_values.hpp — how many directions a matrix has.
#pragma once

#include <vector>

#include "core/tensor.hpp"

namespace dsa::verify {

/// Singular values of x (m, n), the largest first: min(m, n) of them, each to within a few units of
/// double of the largest. One-sided Jacobi.
std::vector<double> singular_values(View<const double, 2> x);

/// Columns of x (m, n) made orthonormal, as rows: (r, m), r the columns that depend on none before
/// them.
Tensor<double, 2> orthonormal_columns(View<const double, 2> x);

}  // namespace dsa::verify
