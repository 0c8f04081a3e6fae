#include "verify/kernels/cases/hopper_fp8.hpp"

#include <algorithm>
#include <cmath>

namespace dsa::verify::kernels {
namespace {

constexpr Index block = 32;
constexpr int fraction_bits = 13;
constexpr double smallest_normal_e4m3 = 0x1p-6;

/// The last place that is kept beside a number of this size.
double unit_of(double size) { return std::ldexp(1, std::ilogb(size) - fraction_bits); }

/// Whether x is a multiple of a power of two: adding 1.5 * 2^52 units leaves no bit below one.
/// |x| < 2^14 units here.
bool is_multiple(double x, double unit) {
  const double shift = 0x1.8p52 * unit;
  return (x + shift) - shift == x;
}

}  // namespace

double hopper_fp8_error(const double* a, const double* b, Index n) {
  double sum = 0, error = 0;  // of e4m3 products, the sum is exact in double
  for (Index first = 0; first < n; first += block) {
    const Index size = std::min(block, n - first);
    double products[block], largest = std::abs(sum) + error;
    for (Index i = 0; i < size; ++i) {
      const double x = a[first + i], y = b[first + i];
      products[i] = x * y;
      if (products[i] != 0)
        largest = std::max(largest, std::max(std::abs(x), smallest_normal_e4m3) *
                                        std::max(std::abs(y), smallest_normal_e4m3));
    }
    if (largest == 0) continue;
    const double unit = unit_of(largest);
    Index lossy = error > 0 || !is_multiple(sum, unit);
    for (Index i = 0; i < size; ++i) {
      lossy += !is_multiple(products[i], unit);
      sum += products[i];
    }
    error += static_cast<double>(lossy) * unit;
    if (sum == 0 && error == 0) continue;
    const double last = unit_of(std::abs(sum) + error);
    if (error > 0 || !is_multiple(sum, last)) error += last;
  }
  return error;
}

}  // namespace dsa::verify::kernels
