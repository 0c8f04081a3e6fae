#include "optimized/cpu/kernels/kl_rows.hpp"

#include "optimized/cpu/kernels/seen.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

/// log x for normal x > 0, to 2 units in the last place; -infinity below the normal numbers.
///
/// x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh s, s = (m-1)/(m+1), |s| < 0.172, by
/// its series to s^9 (what is left out: 2 s^11 / 11, less than 2^-30 of it). ln 2 in two pieces: e
/// times the first is exact.
Vector logarithm(Vector x) {
  const Integers bits = as_integers(x);
  const Integers e = (bits - as_integers(fill(0x1.6a09e6p-1f))) >> 23;
  const Vector m = as_vector(bits - (e << 23)), n = __builtin_convertvector(e, Vector);
  const Vector f = m - 1.0f, s = f / (m + 1.0f), s2 = s * s;
  Vector series = fill(2.0f / 9);
  series = fused(series, s2, fill(2.0f / 7));
  series = fused(series, s2, fill(2.0f / 5));
  series = fused(series, s2, fill(2.0f / 3));
  // 2 s = f - s f: the series corrects f, which is exact.
  const Vector correction = fused(series * s2, s, -(s * f));
  const Vector y = fused(n, fill(0x1.63p-1f), f + fused(n, fill(-0x1.bd0106p-13f), correction));
  return x < 0x1p-126f ? fill(-__builtin_inff()) : y;
}

Vector guarded(Vector x, RowGuard guard) { return larger(x + guard.added, fill(guard.least)); }

}  // namespace

RowSum sum_row(const float* z, Index n, float c) {
  const Seen seen(0, n);
  Vector largest = fill(-__builtin_inff()), sum{};
  for (Index i = 0; i < n; i += width)
    largest = larger(seen(i) ? vector_at(z + i) * c : fill(-__builtin_inff()), largest);
  const float top = largest_of(largest);
  for (Index i = 0; i < n; i += width) {
    const Vector e = exponential(vector_at(z + i) * c - top);
    sum += seen(i) ? e : Vector{};
  }
  return {top, sum_of(sum)};
}

KlSums sum_kl(const KlRow& row) {
  const bool exact = row.log_q.added == 0 && row.log_q.least == 0;
  const Seen seen(0, row.n);
  Vector loss{}, sum{};
  for (Index i = 0; i < row.n; i += width) {
    const Integers here = seen(i);
    const Vector p = here ? vector_at(row.u + i) * row.over_sum : Vector{};
    const Vector log_student = vector_at(row.z + i) * row.c - row.lse;
    Vector log_q = log_student, r = -p;
    if (!exact) {
      const Vector q = exponential(log_student), moved = q + row.log_q.added;
      log_q = logarithm(guarded(q, row.log_q));
      // Where the guard clamps, its derivative is 0.
      const Vector slope = row.log_q.added == 0 ? fill(1.0f) : q / moved;
      r = moved < row.log_q.least ? Vector{} : r * slope;
    }
    const Vector term = p * (logarithm(guarded(p, row.log_p)) - log_q);
    loss += p > 0.0f ? term : Vector{};  // 0 log 0 = 0
    r = here ? r : Vector{};
    sum += r;
    put(row.u + i, r);
  }
  return {sum_of(loss), sum_of(sum)};
}

void differentiate_kl(const KlGradientRow& row) {
  for (Index i = 0; i < row.n; i += width) {
    const Vector q = exponential(vector_at(row.z + i) * row.c - row.lse);
    const Vector r = row.r ? vector_at(row.r + i) : Vector{};
    put(row.d + i, (r - q * row.sum_r) * row.factor);
  }
}

}  // namespace dsa::cpu::DSA_TIER
