// verify/measure/least_squares.hpp — z that minimises |target - sum_j z[j] columns[j]|.
#pragma once

#include <vector>

namespace dsa::verify {

/// sum_i a[i] b[i]
double inner(const std::vector<double>& a, const std::vector<double>& b);

/// Normal equations by Cholesky. Columns that depend on others (to within what squaring leaves of
/// double) get 0. All columns are as long as the target.
std::vector<double> least_squares(const std::vector<std::vector<double>>& columns,
                                  const std::vector<double>& target);

}  // namespace dsa::verify
