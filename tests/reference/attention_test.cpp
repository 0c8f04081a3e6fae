// The ops of the definition worked by hand: indexer, top-k, softmax, MLA and router.
#include <numeric>

#include "reference/ops/indexer_scores.hpp"
#include "reference/ops/mla.hpp"
#include "reference/ops/router.hpp"
#include "reference/ops/topk_select.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::Visibility;

namespace {

/// A (T, H, D) tensor out of T * H rows.
Tensor<double, 3> heads(Index H, const Tensor<double, 2>& x) {
  Tensor<double, 3> y({x.shape()[0] / H, H, x.shape()[1]});
  std::copy(x.begin(), x.end(), y.begin());
  return y;
}

Tensor<double, 2> scores_of(const Tensor<double, 3>& q, const Tensor<double, 2>& k,
                            const Tensor<double, 2>& w, const Indexer& indexer,
                            const std::vector<Index>& documents) {
  Tensor<double, 2> scores({q.shape()[0], k.shape()[0]}, 99);
  const Index first = k.shape()[0] - q.shape()[0];
  reference::indexer_scores<double>(scores, q, k, w, indexer, Visibility{first, documents});
  return scores;
}

std::vector<Index> topk(std::initializer_list<double> row, Index K) {
  Tensor<Index, 2> chosen({1, K}, 99);
  reference::topk_select<double>(chosen, matrix({row}));
  return {chosen.begin(), chosen.end()};
}

/// Random inputs of MLA, in both forms.
struct MlaForm {
  Index T = 5, S = 9, N = 3, B = 4, P = 6, U = 7, R = 8;
  Tensor<double, 3> q_nope = normal<3>({T, N, B}, 1), q_rope = normal<3>({T, N, P}, 2),
                    kv_b = normal<3>({N, B + U, R}, 3);
  Tensor<double, 2> c_kv = normal<2>({S, R}, 4), k_rope = normal<2>({S, P}, 5);
  double scale = 0.3;

  Tensor<double, 3> expanded(const Tensor<Index, 2>& chosen) const {
    Tensor<double, 3> kv({S, N, B + U}), out({T, N, U}, 99);
    for (Index s = 0; s < S; ++s)
      for (Index n = 0; n < N; ++n)
        for (Index i = 0; i < B + U; ++i)
          for (Index r = 0; r < R; ++r) kv(s, n, i) += kv_b(n, i, r) * c_kv(s, r);
    reference::mla_expanded<double>(out, q_nope, q_rope, kv, k_rope, chosen, scale);
    return out;
  }
  Tensor<double, 3> absorbed(const Tensor<Index, 2>& chosen) const {
    Tensor<double, 3> out({T, N, U}, 99);
    reference::mla_absorbed<double>(out, q_nope, q_rope, c_kv, k_rope, kv_b, chosen, scale);
    return out;
  }
};

}  // namespace

TEST_CASE("indexer_scores: two queries, three keys, worked by hand", "[reference]") {
  const auto q = heads(1, matrix({{1, 2}, {-1, 0}}));
  const auto k = matrix({{3, 1}, {-2, 5}, {-4, 0}});
  Indexer indexer;
  indexer.dot_scale = 0.5, indexer.weight_scale = 0.25;
  const auto scores = scores_of(q, k, matrix({{-10}, {8}}), indexer, {0, 0, 0});
  CHECK(scores(0, 0) == -6.25);      // 0.25 * -10 * relu(0.5 * 5)
  CHECK(scores(0, 1) == -10);        // 0.25 * -10 * relu(0.5 * 8)
  CHECK(scores(0, 2) == -infinity);  // key 2 is later than query 0, which is token 1
  CHECK(scores(1, 0) == 0);          // relu(0.5 * -3) = 0
  CHECK(scores(1, 1) == 2);          // 0.25 * 8 * relu(0.5 * 2)
  CHECK(scores(1, 2) == 4);          // its own key: just visible

  indexer.activation = Indexer::Activation::none;
  CHECK(scores_of(q, k, matrix({{-10}, {8}}), indexer, {0, 0, 0})(1, 0) == -3);
}

TEST_CASE("indexer_scores: relu is taken head by head, before the weight", "[reference]") {
  const auto q = heads(2, matrix({{1, 0}, {0, 1}}));
  const auto k = matrix({{5, -3}});
  CHECK(scores_of(q, k, matrix({{2, 100}}), {}, {0})(0, 0) == 10);  // 2 * 5 + 100 * relu(-3)
  CHECK(scores_of(q, k, matrix({{-2, -1}}), {}, {0})(0, 0) == -10);
}

TEST_CASE("indexer_scores: other documents and padding are invisible", "[reference]") {
  const auto q = heads(1, matrix({{1}, {1}, {1}, {1}}));
  const auto k = matrix({{1}, {2}, {3}, {4}});
  const auto w = matrix({{1}, {1}, {1}, {1}});
  constexpr double no = -infinity;
  CHECK(distance(scores_of(q, k, w, {}, {0, 0, 1, 1}),
                 matrix({{1, no, no, no}, {1, 2, no, no}, {no, no, 3, no}, {no, no, 3, 4}})) == 0);
  CHECK(distance(  // padding in front and behind does not even see itself
            scores_of(q, k, w, {}, {-1, 0, 0, -1}),
            matrix({{no, no, no, no}, {no, 2, no, no}, {no, 2, 3, no}, {no, no, no, no}})) == 0);
}

TEST_CASE("indexer_scores names a wrong shape", "[reference]") {
  const auto q = heads(1, matrix({{1, 2}, {-1, 0}}));
  const std::vector<Index> documents(3, 0);
  Tensor<double, 2> scores({2, 3}), narrow({2, 2});
  const auto run = [&](auto& out, const Tensor<double, 2>& k, const Tensor<double, 2>& w) {
    reference::indexer_scores<double>(out, q, k, w, {}, Visibility{1, documents});
  };
  const Tensor<double, 2> k({3, 2}), w({2, 1});
  CHECK_THROWS_WITH(run(scores, Tensor<double, 2>({3, 4}), w),
                    "k has shape (3, 4), expected (3, 2)");
  CHECK_THROWS_WITH(run(scores, k, Tensor<double, 2>({2, 3})),
                    "w has shape (2, 3), expected (2, 1)");
  CHECK_THROWS_WITH(run(narrow, k, w), "scores has shape (2, 2), expected (2, 3)");
}

TEST_CASE("topk_select: best first, ties to the lower subscript, -1 behind", "[reference]") {
  using Row = std::vector<Index>;
  CHECK(topk({0.5, 3, -2, 3, 1}, 3) == Row{1, 3, 4});
  CHECK(topk({7, 7, 7, 7}, 2) == Row{0, 1});
  CHECK(topk({0.0, -0.0, 0.0}, 3) == Row{0, 1, 2});
  CHECK(topk({-5, -infinity, -7}, 3) == Row{0, 2, -1});
  CHECK(topk({-infinity, -infinity}, 2) == Row{-1, -1});
  CHECK(topk({1, 2}, 4) == Row{1, 0, -1, -1});
  CHECK(topk({1, infinity, -1e308}, 2) == Row{1, 0});
  CHECK_THROWS_WITH(topk({1, std::nan(""), 2}, 1),
                    "score (0, 1) is NaN: there is no order to select by");

  Tensor<Index, 2> chosen({2, 1});
  CHECK_THROWS_WITH(reference::topk_select<double>(chosen, matrix({{1, 2}})),
                    "chosen has shape (2, 1), expected (1, 1)");
}

TEST_CASE("topk_select against a sort, for every K", "[reference]") {
  const Index T = 6, S = 37;
  Tensor<double, 2> scores({T, S});
  for (Index t = 0; t < T; ++t)
    for (Index s = 0; s < S; ++s) {  // 17 values: many ties
      scores(t, s) = dyadic(static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(s));
      if (s % 5 == t % 5) scores(t, s) = -infinity;
    }
  for (Index K = 1; K <= S; ++K) {
    Tensor<Index, 2> chosen({T, K}), want({T, K}, -1);
    reference::topk_select<double>(chosen, scores);
    for (Index t = 0; t < T; ++t) {
      std::vector<Index> all(static_cast<std::size_t>(S));
      std::iota(all.begin(), all.end(), 0);
      std::stable_sort(all.begin(), all.end(),
                       [&](Index a, Index b) { return scores(t, a) > scores(t, b); });
      for (Index i = 0; i < K; ++i)
        if (const Index s = all[static_cast<std::size_t>(i)]; scores(t, s) > -infinity)
          want(t, i) = s;
    }
    INFO("K = " << K);
    CHECK(std::equal(chosen.begin(), chosen.end(), want.begin()));
  }
}

TEST_CASE("softmax by hand, large numbers without overflow, and nothing stays nothing",
          "[reference]") {
  std::vector<double> p = {std::log(1.0), std::log(2.0), std::log(5.0)};
  reference::softmax(p.data(), 3);
  CHECK(p[0] == Approx(0.125).epsilon(1e-15));
  CHECK(p[1] == Approx(0.25).epsilon(1e-15));
  CHECK(p[2] == Approx(0.625).epsilon(1e-15));
  p = {1000, 1000 + std::log(3.0), -1000};
  reference::softmax(p.data(), 3);
  CHECK(p[0] == Approx(0.25).epsilon(1e-12));
  CHECK(p[2] == 0);
  p = {42, 1};
  reference::softmax(p.data(), 1);
  CHECK(p == std::vector<double>{1, 1});
  reference::softmax(p.data(), 0);
  CHECK(p == std::vector<double>{1, 1});
}

TEST_CASE("mla: one head, two keys, worked by hand", "[reference]") {
  const auto q_nope = heads(1, matrix({{2}})), q_rope = heads(1, matrix({{1, -1}}));
  const auto kv = heads(1, matrix({{3, 10, 20}, {1, -4, 8}}));  // [k_nope | v v]
  const auto k_rope = matrix({{1, 2}, {0, -3}});
  Tensor<double, 3> out({1, 1, 2}, 99);
  // Dot products 2*3 + 1 - 2 = 5 and 2*1 + 0 + 3 = 5, then with the scale ln 3 / 2 a tie.
  const auto run = [&](const Tensor<Index, 2>& chosen, double scale, const auto& rope_key) {
    reference::mla_expanded<double>(out, q_nope, q_rope, kv, rope_key, chosen, scale);
  };
  run(subscripts({{0, 1}}), 1, k_rope);
  CHECK(out(0, 0, 0) == Approx(3).epsilon(1e-15));  // (10 - 4)/2
  CHECK(out(0, 0, 1) == Approx(14).epsilon(1e-15));
  // Key 1 two below: with the scale ln(3)/2 it weighs 1/3 of key 0.
  run(subscripts({{1, 0, -1}}), std::log(3.0) / 2, matrix({{1, 2}, {-2, -3}}));
  CHECK(out(0, 0, 0) == Approx(0.75 * 10 - 0.25 * 4).epsilon(1e-14));
  CHECK(out(0, 0, 1) == Approx(0.75 * 20 + 0.25 * 8).epsilon(1e-14));
  run(subscripts({{-1, 1}}), 7, k_rope);  // one key: its value, whatever it scores
  CHECK(out(0, 0, 0) == -4);
  run(subscripts({{-1, -1}}), 1, k_rope);
  CHECK(out(0, 0, 0) == 0);
  CHECK(out(0, 0, 1) == 0);

  CHECK_THROWS_WITH(run(subscripts({{0}}), 1, matrix({{1}, {0}})),
                    "k_rope has shape (2, 1), expected (2, 2)");
  const auto wide = heads(1, matrix({{1, 2}}));
  CHECK_THROWS_WITH(
      reference::mla_expanded<double>(out, wide, q_rope, kv, k_rope, subscripts({{0}}), 1),
      "kv has shape (2, 1, 3), expected (2, 1, 4)");
}

TEST_CASE("mla: expanded equals absorbed", "[reference]") {
  const MlaForm mla;
  Tensor<Index, 2> chosen({mla.T, 4}, -1);
  for (Index t = 0; t < mla.T; ++t)  // row 0 chooses nothing, the last row four keys
    for (Index i = 0; i < t; ++i) chosen(t, i) = (2 * t + 5 * i) % mla.S;
  const auto expanded = mla.expanded(chosen), absorbed = mla.absorbed(chosen);
  CHECK(distance(expanded, absorbed) <= 1e-12);
  CHECK(*std::max_element(expanded.begin(), expanded.end()) > 1);
  for (Index i = 0; i < mla.N * mla.U; ++i) {
    CHECK(expanded.data()[i] == 0);
    CHECK(absorbed.data()[i] == 0);
  }

  MlaForm wrong;
  wrong.kv_b = normal<3>({mla.N, mla.B, mla.R}, 3);
  CHECK_THROWS_WITH(wrong.absorbed(chosen), "kv_b has shape (3, 4, 8), expected (3, 11, 8)");
}

TEST_CASE("router_scores: sigmoid, or softmax over all experts", "[reference]") {
  const auto z = matrix({{0, std::log(3.0), -std::log(4.0)}});
  Tensor<double, 2> s({1, 3}), narrow({1, 2});
  reference::router_scores<double>(s, z, Router::Scoring::sigmoid);
  CHECK(distance(s, matrix({{0.5, 0.75, 0.2}})) <= 1e-15);
  reference::router_scores<double>(s, z, Router::Scoring::softmax);
  CHECK(distance(s, matrix({{1 / 4.25, 3 / 4.25, 0.25 / 4.25}})) <= 1e-15);
  CHECK_THROWS_WITH(reference::router_scores<double>(narrow, z, Router::Scoring::sigmoid),
                    "s has shape (1, 2), expected (1, 3)");
}

TEST_CASE("router: the bias takes part in the choice, not in the weights", "[reference]") {
  const auto ops = reference::definition<double>();
  const auto s = matrix({{0.5, 0.25, 0.125, 0.75}});
  const auto bias = vector({0.0, 1.0, 1.0, -2.0});
  Tensor<double, 2> choice({1, 4}), weights({1, 2});
  Tensor<Index, 2> experts({1, 2});
  ops.router_choice("", choice, s, parameter(bias));
  CHECK(distance(choice, matrix({{0.5, 1.25, 1.125, -1.25}})) == 0);
  ops.topk_select("", experts, choice);
  ops.router_weights("", weights, s, experts, true, 3.0);
  CHECK(experts(0, 0) == 1);
  CHECK(experts(0, 1) == 2);
  CHECK(weights(0, 0) == Approx(2).epsilon(1e-15));  // 0.25 / 0.375 * 3
  CHECK(weights(0, 1) == Approx(1).epsilon(1e-15));
  ops.router_choice("", choice, s, Parameter{});  // V2 has no bias
  CHECK(distance(choice, s) == 0);
}

TEST_CASE("router_group_scores: the sum of the two best, or the best", "[reference]") {
  const auto choice = matrix({{0.9, 0.1, 0.0, 0.6, 0.3, 0.5}, {-3, -1, -2, -5, -1, -9}});
  Tensor<double, 2> groups({2, 2}), three({3, 2});
  reference::router_group_scores<double>(groups, choice, Router::Groups::sum_of_two);
  CHECK(distance(groups, matrix({{1.0, 1.1}, {-3, -6}})) <= 1e-15);
  reference::router_group_scores<double>(groups, choice, Router::Groups::maximum);
  CHECK(distance(groups, matrix({{0.9, 0.6}, {-1, -1}})) == 0);
  CHECK_THROWS_WITH(reference::router_group_scores<double>(three, choice, Router::Groups::maximum),
                    "groups has shape (3, 2), expected (2, 2)");
}

TEST_CASE("router_drop_groups: 0 lets a dropped expert win where scores are negative",
          "[reference]") {
  const auto choice = matrix({{-0.2, -0.4, -0.7, -0.1}});  // groups {0,1} and {2,3}
  const auto experts_with = [&](double dropped) {
    auto left = choice;
    reference::router_drop_groups<double>(left, subscripts({{0}}), 2, dropped);
    CHECK(left(0, 1) == -0.4);
    CHECK(left(0, 2) == dropped);
    Tensor<Index, 2> experts({1, 2});
    reference::topk_select<double>(experts, left);
    return std::vector<Index>(experts.begin(), experts.end());
  };
  CHECK(experts_with(-infinity) == std::vector<Index>{0, 1});
  CHECK(experts_with(0) == std::vector<Index>{2, 3});
}

TEST_CASE("router_weights: normalised and scaled, or as they are", "[reference]") {
  const auto s = matrix({{0.1, 0.3, 0.2}, {0, 0, 0}});
  const auto experts = subscripts({{2, 1}, {0, 1}});
  Tensor<double, 2> weights({2, 2}), narrow({2, 1});
  reference::router_weights<double>(weights, s, experts, true, 2.5);
  CHECK(distance(weights, matrix({{1, 1.5}, {0, 0}})) <= 1e-15);  // 0/(0 + 1e-20): no NaN
  reference::router_weights<double>(weights, s, experts, false, 10);
  CHECK(distance(weights, matrix({{2, 3}, {0, 0}})) <= 1e-15);
  CHECK_THROWS_WITH(reference::router_weights<double>(narrow, s, experts, true, 1),
                    "weights has shape (2, 1), expected (2, 2)");
}

TEST_CASE("swiglu, accumulate, add and index_key_norm of the table", "[reference]") {
  const auto ops = reference::definition<double>();
  Tensor<double, 2> h({1, 3});
  ops.swiglu("", h, matrix({{0, std::log(3.0), -700}}), matrix({{5, 2, 1}}));
  CHECK(h(0, 0) == 0);
  CHECK(h(0, 1) == Approx(std::log(3.0) * 0.75 * 2).epsilon(1e-15));
  CHECK(std::abs(h(0, 2)) < 1e-300);

  auto y = matrix({{1, 1}, {1, 1}, {1, 1}});
  const std::vector<Index> places = {2, 0};
  const std::vector<double> weights = {10, 0.5};
  ops.accumulate("", y, matrix({{1, 2}, {4, 6}}), places, weights);
  CHECK(distance(y, matrix({{3, 4}, {1, 1}, {11, 21}})) == 0);
  ops.add("", y, matrix({{1, 0}, {0, 0}, {0, -1}}));
  CHECK(distance(y, matrix({{4, 4}, {1, 1}, {11, 20}})) == 0);

  const auto gain = vector({2.0, 1.0}), shift = vector({0.0, 5.0});
  IndexerWeights w;
  w.k_norm = parameter(gain), w.k_norm_bias = parameter(shift);
  Indexer indexer;
  indexer.key_norm_eps = 0;
  Tensor<double, 2> k({1, 2});
  const auto x = matrix({{1, 3}});
  ops.index_key_norm("", k, x, w, indexer);
  CHECK(distance(k, matrix({{-2, 6}})) <= 1e-15);
  indexer.key_norm = Indexer::KeyNorm::rms_norm;
  ops.index_key_norm("", k, x, w, indexer);
  CHECK(distance(k, matrix({{2 / std::sqrt(5.0), 3 / std::sqrt(5.0)}})) <= 1e-15);
  indexer.key_norm = Indexer::KeyNorm::none;
  ops.index_key_norm("", k, x, w, indexer);
  CHECK(distance(k, x) == 0);
}
