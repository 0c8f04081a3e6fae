#include "optimized/train/model/selectors.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "core/threads.hpp"

namespace dsa::train {
namespace {

constexpr Index row_ns = 100'000;  // a guess: a row of some hundred keys

/// The K keys of largest x, where there are more than K; x[i] is of key begin + i.
template <class X>
void choose_largest(View<std::int32_t, 2> chosen, Index t, Index begin, const std::vector<X>& x) {
  const Index n = static_cast<Index>(x.size()), k = std::min(n, chosen.shape[1]);
  std::vector<Index> order(x.size());
  std::iota(order.begin(), order.end(), Index{0});
  const auto larger = [&](Index a, Index b) {
    const X left = x[static_cast<std::size_t>(a)], right = x[static_cast<std::size_t>(b)];
    return left != right ? left > right : a < b;
  };
  if (k < n) std::nth_element(order.begin(), order.begin() + k, order.end(), larger);
  std::sort(order.begin(), order.begin() + k);
  for (Index i = 0; i < chosen.shape[1]; ++i)
    chosen(t, i) =
        i < k ? static_cast<std::int32_t>(begin + order[static_cast<std::size_t>(i)]) : -1;
}

/// softmax_s( scale q[t,n,:] . k[s,n,:] ), summed over n
std::vector<double> mass_of(const cpu::HeadsIn& in, Index t) {
  const Index first = in.begin(t), N = in.q.shape[1], D = in.q.shape[2];
  std::vector<double> mass(static_cast<std::size_t>(t + 1 - first), 0.0), z(mass.size());
  for (Index n = 0; n < N; ++n) {
    const float* const q = in.q.data + (t * N + n) * D;
    for (Index s = first; s <= t; ++s)
      z[static_cast<std::size_t>(s - first)] =
          in.scale * std::inner_product(q, q + D, in.k.data + (s * N + n) * D, 0.0f);
    const double most = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (double& x : z) sum += x = std::exp(x - most);
    for (std::size_t i = 0; i < z.size(); ++i) mass[i] += z[i] / sum;
  }
  return mass;
}

}  // namespace

void choose_recent(View<std::int32_t, 2> chosen, View<const std::int32_t, 1> begin) {
  const Index K = chosen.shape[1];
  for (Index t = 0; t < chosen.shape[0]; ++t) {
    const Index first = std::max<Index>(begin(t), t + 1 - K);
    for (Index i = 0; i < K; ++i)
      chosen(t, i) = first + i <= t ? static_cast<std::int32_t>(first + i) : -1;
  }
}

void choose_random(View<std::int32_t, 2> chosen, View<const std::int32_t, 1> begin,
                   std::uint64_t seed) {
  parallel_for(chosen.shape[0], row_ns, [&](Index t) {
    std::vector<std::uint64_t> drawn(static_cast<std::size_t>(t + 1 - begin(t)));
    std::mt19937_64 bits((seed << 32) + static_cast<std::uint64_t>(t));  // the standard fixes them
    for (std::uint64_t& x : drawn) x = bits();
    choose_largest(chosen, t, begin(t), drawn);
  });
}

void choose_oracle(View<std::int32_t, 2> chosen, const cpu::HeadsIn& in) {
  parallel_for(chosen.shape[0], row_ns,
               [&](Index t) { choose_largest(chosen, t, in.begin(t), mass_of(in, t)); });
}

}  // namespace dsa::train
