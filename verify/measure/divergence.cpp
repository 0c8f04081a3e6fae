#include "verify/measure/divergence.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "verify/measure/bounds.hpp"

namespace dsa::verify {
namespace {

double log_sum_exp(View<const double, 1> x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double value : x) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

/// e^d - 1 - d without cancellation near 0.
double excess(double d) {
  if (std::abs(d) > 1e-3) return std::expm1(d) - d;
  return d * d * (0.5 + d * (1.0 / 6 + d * (1.0 / 24 + d / 120)));
}

std::vector<Index> top(View<const double, 1> x, Index k) {
  std::vector<Index> order(static_cast<std::size_t>(x.size()));
  std::iota(order.begin(), order.end(), Index{0});
  k = std::min(k, x.size());
  std::partial_sort(order.begin(), order.begin() + k, order.end(),
                    [&](Index a, Index b) { return x(a) != x(b) ? x(a) > x(b) : a < b; });
  order.resize(static_cast<std::size_t>(k));
  return order;
}

bool all_finite(View<const double, 1> x) {
  return std::all_of(x.begin(), x.end(), [](double v) { return std::isfinite(v); });
}

/// Sums over rows, turned into means at the end.
struct Sums {
  double squared_error = 0, want = 0, want_squared = 0;
  Index elements = 0, labels = 0;
  double loss_want = 0, loss_got = 0;
};

void add_elements(const LogitsRow& row, LogitsMetrics& m, Sums& sums) {
  for (Index v = 0; v < row.want.size(); ++v) {
    const double want = row.want(v), got = row.got(v);
    if (!std::isfinite(want) || !std::isfinite(got)) {
      if (!(want == got)) ++m.wrong_kind;  // equal infinities are equal; NaN equals nothing
      continue;
    }
    const double error = std::abs(got - want);
    const double relative = error == 0 ? 0 : error / std::max(std::abs(want), 1e-300);
    const Place at{row.at.sequence, row.at.position, v};
    if (error > m.max_abs) m.max_abs = error, m.max_abs_at = at;
    if (relative > m.max_rel) m.max_rel = relative, m.max_rel_at = at;
    sums.squared_error += error * error;
    sums.want += want;
    sums.want_squared += want * want;
    ++sums.elements;
  }
}

void add_ranks(const LogitsRow& row, LogitsMetrics& m) {
  const std::vector<Index> want = top(row.want, 10), got = top(row.got, 10);
  const auto k = static_cast<double>(want.size());
  double common = 0, in_place = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    common += std::count(got.begin(), got.end(), want[i]) > 0;
    in_place += want[i] == got[i];
  }
  m.top1 += want[0] == got[0];
  m.top10_overlap += common / k;
  m.jaccard += common / (2 * k - common);
  m.rank_agreement += in_place / k;
}

}  // namespace

double kl_divergence(View<const double, 1> want, View<const double, 1> got) {
  expect_shape("logits", got, want.shape);
  if (!all_finite(want) || !all_finite(got)) return std::numeric_limits<double>::quiet_NaN();
  const double p_norm = log_sum_exp(want), q_norm = log_sum_exp(got);
  double sum = 0;
  for (Index v = 0; v < want.size(); ++v) {
    const double log_p = want(v) - p_norm;
    sum += std::exp(log_p) * excess((got(v) - want(v)) - (q_norm - p_norm));
  }
  return sum;
}

double larger_kl(View<const double, 1> a, View<const double, 1> b) {
  return std::max(kl_divergence(a, b), kl_divergence(b, a));
}

bool is_worse(double x, double than) {
  if (std::isnan(than)) return false;
  return std::isnan(x) || x > than;
}

double kl_rounding(View<const double, 1> logits) {
  double largest = 0;
  for (double value : logits) largest = std::max(largest, std::abs(value));
  // log_sum_exp rounds V terms of a sum and adds the maximum back; d subtracts four such numbers.
  const double d = gamma(logits.size() + 4, unit_roundoff_fp64) + 4 * unit_roundoff_fp64 * largest;
  return d * d / 2;
}

LogitsMetrics measure(std::span<const LogitsRow> rows) {
  LogitsMetrics m;
  Sums sums;
  for (const LogitsRow& row : rows) {
    ++m.rows;
    add_elements(row, m, sums);
    const double kl = kl_divergence(row.want, row.got);
    m.kl_mean += kl;
    if (m.rows == 1 || is_worse(kl, m.kl_max)) {
      m.kl_max = kl, m.kl_max_at = row.at, m.kl_max_token = row.token;
    }
    if (!all_finite(row.want) || !all_finite(row.got)) continue;
    add_ranks(row, m);
    if (row.next < 0) continue;
    ++sums.labels;
    sums.loss_want += log_sum_exp(row.want) - row.want(row.next);
    sums.loss_got += log_sum_exp(row.got) - row.got(row.next);
  }
  if (m.rows == 0) return m;
  const auto n = static_cast<double>(m.rows), elements = static_cast<double>(sums.elements);
  for (double* mean : {&m.kl_mean, &m.top1, &m.top10_overlap, &m.jaccard, &m.rank_agreement})
    *mean /= n;
  const double spread = sums.want_squared - sums.want * sums.want / elements;
  m.nmse = sums.squared_error == 0 ? 0 : sums.squared_error / spread;
  if (sums.labels > 0) {
    m.perplexity_want = std::exp(sums.loss_want / static_cast<double>(sums.labels));
    m.perplexity_got = std::exp(sums.loss_got / static_cast<double>(sums.labels));
  }
  return m;
}

}  // namespace dsa::verify
