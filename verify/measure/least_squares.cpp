#include "verify/measure/least_squares.hpp"

#include <cmath>
#include <cstddef>
#include <numeric>

namespace dsa::verify {

double inner(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

std::vector<double> least_squares(const std::vector<std::vector<double>>& columns,
                                  const std::vector<double>& target) {
  const std::size_t n = columns.size();
  constexpr double dependent = 1e-12;  // what is left of a column's square: 2^-53 and some growth
  std::vector<std::vector<double>> l(n, std::vector<double>(n));  // lower triangle: A'A = l l'
  std::vector<double> z(n);
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t i = 0; i <= j; ++i) {
      double sum = inner(columns[j], columns[i]);
      for (std::size_t k = 0; k < i; ++k) sum -= l[j][k] * l[i][k];
      if (i < j)
        l[j][i] = l[i][i] > 0 ? sum / l[i][i] : 0;
      else
        l[j][j] = sum > dependent * inner(columns[j], columns[j]) ? std::sqrt(sum) : 0;
    }
    double sum = inner(columns[j], target);  // forward: l y = A' target
    for (std::size_t k = 0; k < j; ++k) sum -= l[j][k] * z[k];
    z[j] = l[j][j] > 0 ? sum / l[j][j] : 0;
  }
  for (std::size_t j = n; j-- > 0;) {  // backward: l' z = y
    for (std::size_t k = j + 1; k < n; ++k) z[j] -= l[k][j] * z[k];
    z[j] = l[j][j] > 0 ? z[j] / l[j][j] : 0;
  }
  return z;
}

}  // namespace dsa::verify
