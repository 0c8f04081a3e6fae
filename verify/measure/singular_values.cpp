#include "verify/measure/singular_values.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "verify/measure/least_squares.hpp"

namespace dsa::verify {
namespace {

using Rows = std::vector<std::vector<double>>;

/// Rows, or columns, of x as vectors.
Rows vectors_of(View<const double, 2> x, bool rows) {
  const auto [m, n] = x.shape;
  Rows all(static_cast<std::size_t>(rows ? m : n));
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) all[static_cast<std::size_t>(rows ? i : j)].push_back(x(i, j));
  return all;
}

/// Turns a and b in their plane so that they are orthogonal; false if they already are.
bool turn(std::vector<double>& a, std::vector<double>& b) {
  constexpr double orthogonal = 1e-15;
  const double aa = inner(a, a), bb = inner(b, b), ab = inner(a, b);
  if (!(std::abs(ab) > orthogonal * std::sqrt(aa * bb))) return false;
  const double zeta = (bb - aa) / (2 * ab);
  const double t = (zeta >= 0 ? 1 : -1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
  const double c = 1 / std::sqrt(1 + t * t), s = c * t;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
  return true;
}

}  // namespace

std::vector<double> singular_values(View<const double, 2> x) {
  constexpr int most_sweeps = 60;  // it converges quadratically: ten are usual
  Rows rows = vectors_of(x, x.shape[0] <= x.shape[1]);
  bool turned = true;
  for (int sweep = 0; turned && sweep < most_sweeps; ++sweep) {
    turned = false;
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (std::size_t j = i + 1; j < rows.size(); ++j) turned |= turn(rows[i], rows[j]);
  }
  std::vector<double> values;
  for (const std::vector<double>& row : rows) values.push_back(std::sqrt(inner(row, row)));
  std::sort(values.begin(), values.end(), std::greater<>());
  return values;
}

Tensor<double, 2> orthonormal_columns(View<const double, 2> x) {
  constexpr double dependent = 1e-10;
  Rows basis;
  for (std::vector<double>& column : vectors_of(x, false)) {
    const double length = std::sqrt(inner(column, column));
    for (int twice = 0; twice < 2; ++twice)  // once is not orthogonal to within rounding
      for (const std::vector<double>& q : basis) {
        const double along = inner(q, column);
        for (std::size_t i = 0; i < column.size(); ++i) column[i] -= along * q[i];
      }
    const double left = std::sqrt(inner(column, column));
    if (!(left > dependent * length)) continue;
    for (double& value : column) value /= left;
    basis.push_back(std::move(column));
  }
  Tensor<double, 2> q({static_cast<Index>(basis.size()), x.shape[0]});
  for (std::size_t i = 0; i < basis.size(); ++i)
    std::copy(basis[i].begin(), basis[i].end(), q.view()[static_cast<Index>(i)].begin());
  return q;
}

}  // namespace dsa::verify
