#include "reference/ops/dot.hpp"

// A clone is chosen before ThreadSanitizer has begun, which then crashes.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define DSA_EVERY_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DSA_EVERY_WIDTH
#endif

namespace dsa::reference {
namespace {

template <class Real>
[[gnu::always_inline]] inline Real dot_of(const Real* a, const Real* b, Index n) {
  constexpr Index lanes = 8;
  Real sum[lanes] = {};
  Index i = 0;
  for (; i + lanes <= n; i += lanes)
    for (Index lane = 0; lane < lanes; ++lane) sum[lane] += a[i + lane] * b[i + lane];
  for (Index lane = 0; i < n; ++i, ++lane) sum[lane] += a[i] * b[i];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

template <class Real>
[[gnu::always_inline]] inline void add_scaled_of(Real* y, Real a, const Real* x, Index n) {
  for (Index i = 0; i < n; ++i) y[i] += a * x[i];
}

}  // namespace

DSA_EVERY_WIDTH double dot(const double* a, const double* b, Index n) { return dot_of(a, b, n); }
long double dot(const long double* a, const long double* b, Index n) { return dot_of(a, b, n); }
Dual dot(const Dual* a, const Dual* b, Index n) { return dot_of(a, b, n); }

DSA_EVERY_WIDTH void add_scaled(double* y, double a, const double* x, Index n) {
  add_scaled_of(y, a, x, n);
}
void add_scaled(long double* y, long double a, const long double* x, Index n) {
  add_scaled_of(y, a, x, n);
}
void add_scaled(Dual* y, Dual a, const Dual* x, Index n) { add_scaled_of(y, a, x, n); }

}  // namespace dsa::reference
