// SwiGLU, feed-forward networks, their mixtures, and the router, in every tier.
#include "optimized/cpu/ops/experts.hpp"

#include <cmath>
#include <limits>
#include <map>

#include "optimized/cpu/ops/router.hpp"
#include "optimized/cpu/ops/swiglu.hpp"
#include "reference/ops/router.hpp"
#include "reference/ops/topk_select.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/helpers.hpp"
#include "verify/measure/bounds.hpp"

using namespace dsa;
using namespace dsa::test;
using verify::gamma;
using verify::unit_roundoff_bf16;
using verify::unit_roundoff_fp32;

namespace {

template <class X>
constexpr Dtype dtype_of = std::is_same_v<X, float> ? Dtype::f32 : Dtype::bf16;
template <class X>
constexpr double roundoff_of = std::is_same_v<X, float> ? unit_roundoff_fp32 : unit_roundoff_bf16;

/// A network's matrices as numbers, and packed.
struct Network {
  Tensor<float, 2> gate_up, down;  // (2F, C), (C, F)
  cpu::FeedForward packed;
  Network(Index C, Index F, Dtype dtype, std::uint64_t seed)
      : gate_up(draw<2>({2 * F, C}, seed)),
        down(draw<2>({C, F}, seed + 1)),
        packed{{{}, gate_up, dtype}, {{}, down, dtype}} {}
};

/// A value and how far rounding may have moved it.
struct Bounded {
  double value = 0, error = 0;
};

double silu(double g) { return g / (1 + std::exp(-g)); }

/// |silu'| <= 1.1; exp is good to two units in the last place, with four more roundings after it.
constexpr double silu_slope = 1.1;
constexpr Index silu_roundings = 8;

/// Row x of a network, and its error: of the sums, through silu, of h's storage, of the sums again.
template <class X>
std::vector<Bounded> feed_forward_row(const X* x, const Network& network) {
  const Index C = network.down.shape()[0], F = network.down.shape()[1];
  const auto gate_up = stored<X>(network.gate_up), down = stored<X>(network.down);
  const double in = gamma(2 * C + C / 512 + 2, unit_roundoff_fp32),
               out = gamma(2 * F + F / 512 + 2, unit_roundoff_fp32);
  std::vector<Bounded> z(static_cast<std::size_t>(2 * F)), h(static_cast<std::size_t>(F)),
      y(static_cast<std::size_t>(C));
  for (Index f = 0; f < 2 * F; ++f) {
    Bounded& sum = z[static_cast<std::size_t>(f)];
    for (Index c = 0; c < C; ++c) {
      const double term = number(x[c]) * number(gate_up(f, c));
      sum.value += term, sum.error += in * std::abs(term);
    }
  }
  for (std::size_t f = 0; f < h.size(); ++f) {
    const Bounded g = z[f], u = z[f + h.size()];
    h[f].value = silu(g.value) * u.value;
    h[f].error =
        silu_slope * g.error * (std::abs(u.value) + u.error) + std::abs(silu(g.value)) * u.error;
    h[f].error += (std::abs(h[f].value) + h[f].error) *
                  (gamma(silu_roundings, unit_roundoff_fp32) + roundoff_of<X>);
  }
  for (Index c = 0; c < C; ++c)
    for (Index f = 0; f < F; ++f) {
      const Bounded& from = h[static_cast<std::size_t>(f)];
      const double w = number(down(c, f));
      Bounded& sum = y[static_cast<std::size_t>(c)];
      sum.value += w * from.value;
      sum.error += std::abs(w) * (from.error + out * (std::abs(from.value) + from.error));
    }
  return y;
}

template <class X>
Tensor<float, 2> run_experts(cpu::Tier tier, const Tensor<float, 2>& before, const Tensor<X, 2>& x,
                             const Tensor<std::int32_t, 2>& chosen, const Tensor<float, 2>& weights,
                             const std::vector<cpu::FeedForward>& networks) {
  Tensor<float, 2> y = before;
  const Index T = x.shape()[0];
  ScratchMemory scratch(
      cpu::experts_scratch(T, chosen.shape()[1], x.shape()[1], networks[0].down.in()), 1);
  cpu::experts<X>({tier}, y, {.x = x, .chosen = chosen, .weights = weights, .networks = networks},
                  scratch);
  return y;
}

/// k experts a token of E, ascending; expert 2 is nobody's, expert 0 everybody's.
Tensor<std::int32_t, 2> some_experts(Index T, Index k, std::int32_t E) {
  Tensor<std::int32_t, 2> chosen({T, k});
  for (Index t = 0; t < T; ++t) {
    chosen(t, 0) = 0;
    for (Index i = 1; i < k; ++i) {
      const auto step = random_bits(9, static_cast<std::uint64_t>(t * k + i)) % 2;
      chosen(t, i) = std::max(chosen(t, i - 1) + 1 + static_cast<std::int32_t>(step), 3);
      chosen(t, i) = std::min(chosen(t, i), E - static_cast<std::int32_t>(k - i));
    }
  }
  return chosen;
}

}  // namespace

TEST_CASE("swiglu is right to rounding, from one end of the floats to the other", "[cpu]") {
  std::vector<float> gates = {0.0f, -0.0f, 1e-30f, -1e-30f, 87.5f, -86.5f, 88.9f, 1e30f};
  for (int i = -400; i < 400; ++i) gates.push_back(static_cast<float>(i) * 0.2f);
  const Index F = static_cast<Index>(gates.size());
  Tensor<float, 2> gate_up({1, 2 * F}, 3.0f);
  std::copy(gates.begin(), gates.end(), gate_up.data());
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    Tensor<float, 2> h({1, F});
    Tensor<bf16, 2> narrow({1, F});
    cpu::swiglu<float>({tier}, h, gate_up);
    cpu::swiglu<bf16>({tier}, narrow, gate_up);
    CHECK(same_bits(narrow, stored<bf16>(h)));
    for (Index f = 0; f < F; ++f) {
      const double g = gate_up(0, f), exact = silu(g) * 3;
      INFO(name_of(tier) << ", gate " << g);
      CHECK(std::abs(h(0, f) - exact) <=
            std::abs(exact) * gamma(silu_roundings, unit_roundoff_fp32));
    }
    Tensor<float, 2> odd({1, 2});
    odd(0, 0) = std::nanf("");
    odd(0, 1) = 1;
    Tensor<float, 2> one({1, 1});
    cpu::swiglu<float>({tier}, one, odd);
    CHECK(std::isnan(one(0, 0)));
    odd(0, 0) = -1000;  // exp(1000) is no float; the silu is as good as zero
    cpu::swiglu<float>({tier}, one, odd);
    CHECK(std::abs(one(0, 0)) <= 1e-34);
  }
}

TEMPLATE_TEST_CASE("a feed-forward network is right to rounding", "[cpu]", float, bf16) {
  const Index T = 5, C = 70, F = 45;
  const Network network(C, F, dtype_of<TestType>, 1);
  const auto x = stored<TestType>(draw<2>({T, C}, 3));
  const auto before = draw<2>({T, C}, 4);
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const bool add : {false, true}) {
      ScratchMemory scratch(cpu::experts_scratch(T, 1, C, F), 1);
      Tensor<float, 2> y = before;
      cpu::feed_forward<TestType>({tier}, y, x, network.packed, add, scratch);
      Index wrong = 0;
      for (Index t = 0; t < T; ++t) {
        const auto expected = feed_forward_row(x.data() + t * C, network);
        for (Index c = 0; c < C; ++c) {
          const Bounded& e = expected[static_cast<std::size_t>(c)];
          const double exact = e.value + (add ? before(t, c) : 0);
          wrong += !(std::abs(y(t, c) - exact) <=
                     e.error + unit_roundoff_fp32 * (std::abs(exact) + e.error));
        }
      }
      INFO(name_of(tier) << (add ? ", added" : ""));
      CHECK(wrong == 0);
    }
}

TEMPLATE_TEST_CASE("a mixture of experts is right to rounding, whatever the threads", "[cpu]",
                   float, bf16) {
  const Index T = 140, C = 40, F = 24, k = 3;
  std::vector<Network> networks;
  std::vector<cpu::FeedForward> packed;
  for (std::uint64_t e = 0; e < 8; ++e) {
    networks.emplace_back(C, F, dtype_of<TestType>, 10 * e);
    packed.push_back(networks.back().packed);
  }
  const auto x = stored<TestType>(draw<2>({T, C}, 3));
  const auto before = draw<2>({T, C}, 4), weights = draw<2>({T, k}, 5);
  const auto chosen = some_experts(T, k, 8);
  std::map<std::pair<Index, std::int32_t>, std::vector<Bounded>> rows;
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < k; ++i)
      rows[{t, chosen(t, i)}] =
          feed_forward_row(x.data() + t * C, networks[static_cast<std::size_t>(chosen(t, i))]);

  for (const cpu::Tier tier : cpu::usable_tiers()) {
    const auto y = run_experts(tier, before, x, chosen, weights, packed);
    Index wrong = 0;
    for (Index t = 0; t < T; ++t)
      for (Index c = 0; c < C; ++c) {
        double sum = before(t, c), magnitude = std::abs(sum), error = 0;
        for (Index i = 0; i < k; ++i) {
          const Bounded& e = rows[{t, chosen(t, i)}][static_cast<std::size_t>(c)];
          sum += weights(t, i) * e.value;
          magnitude += std::abs(weights(t, i)) * (std::abs(e.value) + e.error);
          error += std::abs(weights(t, i)) * e.error;
        }
        wrong += !(std::abs(y(t, c) - sum) <= error + magnitude * gamma(2 * k, unit_roundoff_fp32));
      }
    INFO(name_of(tier));
    CHECK(wrong == 0);
    for (const int threads : {1, 2, 3}) {
      const SharingThreads several(threads);
      INFO(threads << " threads");
      CHECK(same_bits(run_experts(tier, before, x, chosen, weights, packed), y));
    }
    Tensor<TestType, 2> last({1, C});
    Tensor<std::int32_t, 2> its({1, k});
    Tensor<float, 2> its_weights({1, k}), its_before({1, C}), expected({1, C});
    std::copy_n(x.data() + (T - 1) * C, C, last.data());
    std::copy_n(chosen.data() + (T - 1) * k, k, its.data());
    std::copy_n(weights.data() + (T - 1) * k, k, its_weights.data());
    std::copy_n(before.data() + (T - 1) * C, C, its_before.data());
    std::copy_n(y.data() + (T - 1) * C, C, expected.data());
    CHECK(same_bits(run_experts(tier, its_before, last, its, its_weights, packed), expected));
  }
  auto unknown = chosen;
  unknown(3, 1) = 8;
  CHECK_THROWS_WITH(run_experts({}, before, x, unknown, weights, packed),
                    "expert 8 was chosen; expected one of 8");
}

namespace {

/// The router as the reference takes it, step by step.
struct Routed {
  Tensor<Index, 2> experts;
  Tensor<double, 2> weights;
};
Routed reference_router(const Tensor<float, 2>& logits, const Tensor<float, 1>& bias,
                        const Config& c) {
  const Index T = logits.shape()[0], E = logits.shape()[1], k = c.num_experts_per_tok;
  Tensor<double, 2> z({T, E}), s({T, E}), weights({T, k});
  std::copy(logits.begin(), logits.end(), z.begin());
  reference::router_scores<double>(s, z, c.router.scoring);
  Tensor<double, 2> choice = s;
  for (Index t = 0; t < T; ++t)
    for (Index e = 0; e < bias.size(); ++e) choice(t, e) += bias(e);
  if (c.router.groups != Router::Groups::none) {
    Tensor<double, 2> groups({T, c.n_group});
    Tensor<Index, 2> kept({T, c.topk_group});
    reference::router_group_scores<double>(groups, choice, c.router.groups);
    reference::topk_select<double>(kept, groups);
    reference::router_drop_groups<double>(choice, kept, c.n_group, c.router.dropped_group_score);
  }
  Tensor<Index, 2> experts({T, k});
  reference::topk_select<double>(experts, choice);
  for (Index t = 0; t < T; ++t) std::sort(&experts(t, 0), &experts(t, 0) + k);
  reference::router_weights<double>(weights, s, experts, c.router.norm_topk_prob,
                                    c.routed_scaling_factor);
  return {experts, weights};
}

void check_router(const Tensor<float, 2>& logits, const Tensor<float, 1>& bias, const Config& c) {
  const Index T = logits.shape()[0], k = c.num_experts_per_tok;
  const Routed expected = reference_router(logits, bias, c);
  Tensor<std::int32_t, 2> experts({T, k});
  Tensor<float, 2> weights({T, k});
  ScratchMemory scratch(cpu::router_scratch(c));
  cpu::router({}, {experts, weights}, logits, bias, c, scratch);
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < k; ++i) {
      INFO("token " << t << ", choice " << i);
      CHECK(experts(t, i) == expected.experts(t, i));
      CHECK(weights(t, i) == static_cast<float>(expected.weights(t, i)));
    }
}

}  // namespace

TEST_CASE("the router is the reference's, ties and groups included", "[cpu]") {
  const Index T = 40, E = 16;
  Config c;
  c.n_routed_experts = E;
  c.num_experts_per_tok = 4, c.n_group = 4, c.topk_group = 2, c.routed_scaling_factor = 2.5;
  auto logits = draw<2>({T, E}, 1);
  for (Index t = 0; t < T; t += 2)  // ties, within groups and between them
    for (Index e = 0; e < E; ++e) logits(t, e) = std::round(logits(t, e));
  const auto bias = draw<1>({E}, 2);
  for (const auto scoring : {Router::Scoring::sigmoid, Router::Scoring::softmax})
    for (const auto groups :
         {Router::Groups::none, Router::Groups::sum_of_two, Router::Groups::maximum})
      for (const double dropped : {0.0, -std::numeric_limits<double>::infinity()})
        for (const bool normalise : {false, true})
          for (const bool biased : {false, true}) {
            c.router = {scoring, groups, biased, dropped, normalise};
            INFO("scoring " << int(scoring) << ", groups " << int(groups) << ", dropped " << dropped
                            << ", bias " << biased);
            check_router(logits, biased ? bias : Tensor<float, 1>(), c);
          }
}

TEST_CASE("the router keeps apart what fp32 scores would tie, and refuses NaN", "[cpu]") {
  Config c;
  c.n_routed_experts = 3, c.num_experts_per_tok = 1;
  Tensor<float, 2> logits({1, 3}, 20.0f);
  logits(0, 2) = 21.0f;  // both sigmoids are 1 in fp32
  check_router(logits, {}, c);
  logits(0, 1) = std::nanf("");
  Tensor<std::int32_t, 2> experts({1, 1});
  Tensor<float, 2> weights({1, 1});
  ScratchMemory scratch(cpu::router_scratch(c));
  CHECK_THROWS_WITH(cpu::router({}, {experts, weights}, logits, {}, c, scratch),
                    "logit (0, 1) of the router is NaN: there is no order to select by");
}
