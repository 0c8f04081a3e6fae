// Facts about single backward ops, by hand; and broken rows of the table, each of which a
// directional derivative must notice.
#include <functional>

#include "reference/ops/hadamard.hpp"
#include "tests/catch.hpp"
#include "tests/reference/backward_support.hpp"

using namespace dsa;
using namespace dsa::test;

TEST_CASE("indexer_scores backward: worked by hand", "[backward]") {
  Tensor<double, 3> q({2, 1, 2}), d_q(q.shape());  // (T, H, D)
  q(0, 0, 0) = 1, q(0, 0, 1) = 2, q(1, 0, 0) = -1, q(1, 0, 1) = 0;
  const Tensor<double, 2> k = matrix({{3, 1}, {-2, 5}, {0, 7}}), w = matrix({{10}, {0.5}});
  Tensor<double, 2> d_k(k.shape()), d_w(w.shape());
  const Tensor<double, 2> d_scores = matrix({{1, 2, 100}, {3, 4, 5}});
  Indexer indexer;
  const std::vector<Index> one_document(3, 0);
  reference::indexer_scores_backward<double>({d_q, d_k, d_w}, {q, k, w}, d_scores, indexer,
                                             {1, one_document});
  // Query 0 (position 1) sees keys 0 and 1, with dots 5 and 8; query 1 has dots -3, 2 and 0: only
  // the second passes relu, for the subgradient at 0 is 0.
  CHECK(d_w(0, 0) == 1 * 5 + 2 * 8);
  CHECK(d_w(1, 0) == 4 * 2);
  CHECK(d_q(0, 0, 0) == 10 * (1 * 3 + 2 * -2));
  CHECK(d_q(0, 0, 1) == 10 * (1 * 1 + 2 * 5));
  CHECK(d_q(1, 0, 0) == 0.5 * 4 * -2);
  CHECK(d_k(0, 0) == 10 * 1);
  CHECK(d_k(1, 0) == 10 * 2 * 1 + 0.5 * 4 * -1);
  CHECK(d_k(2, 0) == 0);
  CHECK(d_k(2, 1) == 0);
}

TEST_CASE("attention backward: a key that nobody chose gets nothing, one chosen twice gets both",
          "[backward]") {
  const Index T = 2, N = 2, B = 3, P = 2, S = 3, U = 2;
  const auto q_nope = normal<3>({T, N, B}, 1), q_rope = normal<3>({T, N, P}, 2),
             kv = normal<3>({S, N, B + U}, 3), d_out = normal<3>({T, N, U}, 4);
  const auto k_rope = normal<2>({S, P}, 5);
  Tensor<double, 3> d_q_nope(q_nope.shape()), d_q_rope(q_rope.shape()), d_kv(kv.shape());
  Tensor<double, 2> d_k_rope(k_rope.shape());
  const auto chosen = subscripts({{0, -1}, {1, 0}});
  reference::mla_expanded_backward<double>({d_q_nope, d_q_rope, d_kv, d_k_rope},
                                           {q_nope, q_rope, kv, k_rope, chosen, 0.5}, d_out);
  for (Index n = 0; n < N; ++n) {
    for (Index i = 0; i < B + U; ++i) CHECK(d_kv(2, n, i) == 0);
    for (Index b = 0; b < B; ++b) CHECK(d_q_nope(0, n, b) == 0);  // one key: p is 1 whatever q is
    for (Index u = 0; u < U; ++u)  // sum_s d_v_s = sum_t d_out, for each row of p sums to 1
      CHECK(d_kv(0, n, B + u) + d_kv(1, n, B + u) ==
            Approx(d_out(0, n, u) + d_out(1, n, u)).epsilon(1e-14));
  }
  for (Index i = 0; i < P; ++i) CHECK(d_k_rope(2, i) == 0);
}

TEST_CASE("cross entropy: the mean over what is counted", "[backward]") {
  const Tensor<double, 2> z = matrix({{0, std::log(3.0)}, {5, 5}, {1, 2}});
  const std::vector<Token> targets = {1, 0, -1};
  const auto weights = reference::mean_over_targets<double>(targets);
  CHECK(weights == std::vector<double>{0.5, 0.5, 0});
  CHECK(reference::cross_entropy<double>(z, targets, weights) ==
        Approx((std::log(4.0 / 3) + std::log(2.0)) / 2).epsilon(1e-14));
  Tensor<double, 2> d(z.shape());
  reference::cross_entropy_backward<double>(d, z, targets, weights);
  CHECK(d(0, 1) == Approx(-0.125).epsilon(1e-14));
  CHECK(d(1, 0) == Approx(-0.25).epsilon(1e-14));
  CHECK(d(2, 0) == 0);
  const std::vector<Token> outside = {2, 0, 0};
  CHECK_THROWS_WITH(reference::cross_entropy<double>(z, outside, weights),
                    "target 2 of row 0 is outside the vocabulary of 2");
}

TEST_CASE("the KL is zero, and teaches nothing, where scores are log p plus a constant",
          "[backward]") {
  const Tensor<double, 2> u = matrix({{1, 2, 5}, {0.5, 0.25, 0.25}});
  Tensor<double, 2> scores(u.shape()), d(u.shape());
  for (Index t = 0; t < 2; ++t)
    for (Index s = 0; s < 3; ++s) scores(t, s) = std::log(u(t, s)) + 3.5;
  const auto keys = subscripts({{0, 1, 2}, {2, 0, 1}});
  const std::vector<double> weights = {1, 1};
  const reference::KlInputs<double> in{scores, u, keys, 1};
  CHECK(std::abs(reference::index_kl<double>(in, weights, {})) < 1e-15);
  reference::index_kl_backward<double>(d, in, weights, {});
  CHECK(distance(d, Tensor<double, 2>({2, 3})) < 1e-15);

  scores(0, 0) += 1;  // now query 0 has something to learn: sum_s d = 0, and KL > 0
  CHECK(reference::index_kl<double>(in, weights, {}) > 0.05);
  d = Tensor<double, 2>({2, 3});
  reference::index_kl_backward<double>(d, in, weights, {});
  CHECK(std::abs(d(0, 0) + d(0, 1) + d(0, 2)) < 1e-15);
  CHECK(d(0, 0) > 0.05);
}

TEST_CASE("the balance loss is alpha where the load is even, and the bias follows the load",
          "[backward]") {
  const Tensor<double, 2> s = matrix({{0.5, 0.5}, {0.5, 0.5}, {9, 1}});
  const auto experts = subscripts({{0}, {1}, {0}});
  const std::vector<Index> documents = {0, 0, -1};  // the third row is padding
  CHECK(reference::balance_loss<double>({s, experts, documents}, 0.25) ==
        Approx(0.25).epsilon(1e-15));
  std::vector<double> bias = {1, 1, 1};
  const std::vector<Index> load = {5, 1, 3};
  reference::update_router_bias(bias, load, 0.001);
  CHECK(bias == std::vector<double>{1 - 0.001, 1 + 0.001, 1});
}

TEST_CASE("the Hadamard rotation backward is its transpose", "[backward]") {
  Tensor<double, 2> x = normal<2>({1, 8}, 1), d_y = normal<2>({1, 8}, 2), y = x, d_x = d_y;
  reference::hadamard<double>(y);
  reference::hadamard_backward<double>(d_x);
  double forward = 0, backward = 0;
  for (Index i = 0; i < 8; ++i) forward += y(0, i) * d_y(0, i), backward += x(0, i) * d_x(0, i);
  CHECK(forward == Approx(backward).epsilon(1e-14));
}

namespace {

using Table = BackwardOps<double>;
using In = View<const double, 2>;
using Out = View<double, 2>;
using Name = const std::string&;

template <class... Arguments, class Change>
void wrap(std::function<void(Name, Arguments...)>& row, Change change) {
  row = [right = row, change](Name name, Arguments... a) { change(right, name, a...); };
}

/// Somebody's training with one thing wrong: the table with a row replaced.
struct Defect {
  const char* name;
  std::function<void(Table&)> put_in;
};

void scale_all(Out x, double by) {
  for (double& value : x) value *= by;
}
Tensor<double, 2> copy_of(In x) {
  Tensor<double, 2> y(x.shape);
  std::copy(x.begin(), x.end(), y.begin());
  return y;
}

const Defect defects[] = {
    {"a linear forgets d_x (stale transposed copy)",
     [](Table& ops) {
       wrap(ops.linear, [](auto& right, Name name, Out d_x, auto d_w, In x, auto& w, In d_y) {
         right(name, name.ends_with("o_proj") ? Out{} : d_x, d_w, x, w, d_y);
       });
     }},
    {"a bias gets the mean over tokens",
     [](Table& ops) {
       wrap(ops.linear, [](auto& right, Name name, Out d_x, auto d_w, In x, auto& w, In d_y) {
         right(name, d_x, d_w, x, w, d_y);
         for (double& b : d_w.d_bias) b /= static_cast<double>(x.shape[0]);
       });
     }},
    {"rmsnorm without its mean term",
     [](Table& ops) {
       ops.rmsnorm = [](Name, Out d_x, View<double, 1> d_g, In x, const Parameter& g, In d_y,
                        double eps) {
         const auto gain = read_all<double>(g);
         Tensor<double, 2> unused(x.shape);
         reference::rmsnorm_backward<double>(unused, d_g, x, {gain.data(), {x.shape[1]}}, d_y, eps);
         for (Index t = 0; t < x.shape[0]; ++t) {
           double squares = 0;
           for (Index c = 0; c < x.shape[1]; ++c) squares += x(t, c) * x(t, c);
           const double rms = std::sqrt(squares / static_cast<double>(x.shape[1]) + eps);
           for (Index c = 0; c < x.shape[1]; ++c)
             d_x(t, c) += gain[static_cast<std::size_t>(c)] * d_y(t, c) / rms;
         }
       };
     }},
    {"layernorm's gain and bias change places",
     [](Table& ops) {
       wrap(ops.index_key_norm,
            [](auto& right, Name name, Out d_x, auto d, In x, auto& w, auto& indexer, In d_y) {
              right(name, d_x, {d.d_b, d.d_g}, x, w, indexer, d_y);
            });
     }},
    {"rope turns forwards",
     [](Table& ops) {
       wrap(ops.rope,
            [](auto& right, Name name, View<double, 3> d_x, In cos, In sin, RopeLayout layout) {
              Tensor<double, 2> other_way = copy_of(sin);
              scale_all(other_way, -1);
              right(name, d_x, cos, other_way, layout);
            });
     }},
    {"the embedding overwrites repeated tokens",
     [](Table& ops) {
       ops.embed = [](Name, Out d_table, std::span<const Token> tokens, In d_x) {
         for (std::size_t t = 0; t < tokens.size(); ++t)
           for (Index c = 0; c < d_table.shape[1]; ++c)
             d_table(tokens[t], c) = d_x(static_cast<Index>(t), c);
       };
     }},
    {"index scores without relu's mask",
     [](Table& ops) {
       wrap(ops.indexer_scores, [](auto& right, Name name, auto d, auto& in, In d_scores,
                                   const Indexer& indexer, auto& visible) {
         Indexer linear = indexer;
         linear.activation = Indexer::Activation::none;
         right(name, d, in, d_scores, linear, visible);
       });
     }},
    {"index scores without the head's scale",
     [](Table& ops) {
       wrap(ops.indexer_scores, [](auto& right, Name name, auto d, auto& in, In d_scores,
                                   const Indexer& indexer, auto& visible) {
         Indexer unscaled = indexer;
         unscaled.weight_scale = 1;
         right(name, d, in, d_scores, unscaled, visible);
       });
     }},
    {"d_k of the indexer is dropped",
     [](Table& ops) {
       wrap(ops.indexer_scores, [](auto& right, Name name, auto d, auto&... rest) {
         Tensor<double, 2> lost(d.d_k.shape);
         d.d_k = lost;
         right(name, d, rest...);
       });
     }},
    {"the last key's d_kv is dropped",
     [](Table& ops) {
       wrap(ops.mla_expanded, [](auto& right, Name name, auto& d, auto& in, auto d_out) {
         right(name, d, in, d_out);
         for (double& value : d.d_kv[d.d_kv.shape[0] - 2]) value = 0;
       });
     }},
    {"attention's scale is missing in the backward",
     [](Table& ops) {
       wrap(ops.mla_expanded, [](auto& right, Name name, auto& d, auto& in, auto d_out) {
         right(name, d, in, d_out);
         for (double& value : d.d_q_nope) value /= in.scale;
       });
     }},
    {"the shared rope key hears one head",
     [](Table& ops) {
       wrap(ops.mla_expanded, [](auto& right, Name name, auto& d, auto& in, auto d_out) {
         right(name, d, in, d_out);
         scale_all(d.d_k_rope, 0.5);
       });
     }},
    {"the router learns nothing", [](Table& ops) { ops.router_weights = [](Name, auto&&...) {}; }},
    {"normalised routing weights are differentiated without their sum",
     [](Table& ops) {
       wrap(ops.router_weights,
            [](auto& right, Name name, Out d_s, In s, auto experts, In d_w, bool, double scale) {
              right(name, d_s, s, experts, d_w, false, scale);
            });
     }},
    {"the routed scaling factor is missing",
     [](Table& ops) {
       wrap(ops.router_weights,
            [](auto& right, Name name, Out d_s, In s, auto experts, In d_w, bool normalise,
               double) { right(name, d_s, s, experts, d_w, normalise, 1); });
     }},
    {"sigmoid scores are differentiated as a softmax",
     [](Table& ops) {
       wrap(ops.router_scores, [](auto& right, Name name, Out d_z, In s, In d_s, auto) {
         right(name, d_z, s, d_s, Router::Scoring::softmax);
       });
     }},
    {"silu is differentiated as sigmoid",
     [](Table& ops) {
       wrap(ops.swiglu, [](auto& right, Name name, Out d_gate, Out d_up, In gate, In up, In d_h) {
         Tensor<double, 2> lost(d_gate.shape);
         right(name, lost, d_up, gate, up, d_h);
         for (Index i = 0; i < gate.size(); ++i)
           d_gate.data[i] += d_h.data[i] * up.data[i] / (1 + std::exp(-gate.data[i]));
       });
     }},
    {"an expert's answer is not weighted",
     [](Table& ops) {
       wrap(ops.accumulate,
            [](auto& right, Name name, auto d, In x, auto rows, auto weights, In d_y) {
              const std::vector<double> ones(weights.size(), 1.0);
              right(name, d, x, rows, std::span<const double>(ones), d_y);
            });
     }},
    {"a residual is counted twice",
     [](Table& ops) {
       wrap(ops.add, [](auto& right, Name name, Out d_x, In d_y) {
         right(name, d_x, d_y);
         if (name.ends_with("attention_residual")) right(name, d_x, d_y);
       });
     }},
    {"cross entropy divides by all rows",
     [](Table& ops) {
       wrap(ops.cross_entropy, [](auto& right, Name name, Out d_z, In z, auto targets,
                                  std::span<const double> weights) {
         const std::vector<double> all(weights.size(), 1.0 / static_cast<double>(weights.size()));
         right(name, d_z, z, targets, std::span<const double>(all));
       });
     }},
    {"the KL is turned round",
     [](Table& ops) {
       wrap(ops.index_kl, [](auto& right, Name name, Out d_scores, auto&... rest) {
         right(name, d_scores, rest...);
         scale_all(d_scores, -1);
       });
     }},
    {"the teacher has eps in its sum",
     [](Table& ops) {
       wrap(ops.index_kl, [](auto& right, Name name, Out d_scores, auto& in, auto weights,
                             KlSemantics semantics) {
         semantics.l1.added = 1e-4;
         right(name, d_scores, in, weights, semantics);
       });
     }},
    {"the balance loss has no gradient",
     [](Table& ops) { ops.balance_loss = [](Name, auto&&...) {}; }},
};

}  // namespace

TEST_CASE("every broken row of the backward table is seen by a directional derivative",
          "[backward][duals]") {
  const Model model = tiny_model(31, [](Config& c) { c.attention_bias = true; });
  const Sequence sequence = packed_sequence({some_tokens(model, 12, 3), some_tokens(model, 6, 4)});
  const Objective<double> objective = every_loss(model, sequence);
  const Direction direction = direction_of(model, 17);
  const double tangent =
      losses_of(moved(model, direction, 0), sequence, as_real<Dual>(objective)).total().tangent;
  const auto departs = [&](const Table& ops) {
    const Product found =
        product(gradients_of(model, sequence, objective, {}, ops).gradients, direction);
    return !(std::abs(tangent - found.value) <= 1e-12 * found.magnitude);
  };
  CHECK_FALSE(departs(reference::backward_definition<double>()));
  for (const Defect& defect : defects) {
    INFO(defect.name);
    Table ops = reference::backward_definition<double>();
    defect.put_in(ops);
    CHECK(departs(ops));
  }
}
