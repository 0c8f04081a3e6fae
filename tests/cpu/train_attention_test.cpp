// Attention in training: forward and backward, over every visible key and over chosen ones.
#include <limits>

#include "core/views.hpp"
#include "optimized/cpu/ops/heads_attention.hpp"
#include "reference/ops/mla.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/train_problem.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

constexpr double u = verify::unit_roundoff_fp32;
using verify::exp_error;
using verify::gamma;

struct Sizes {
  Packed documents;
  Index N, C, U, K;
};

template <class T>
struct Results {
  Tensor<T, 3> out, d_q, d_k, d_v;
  Tensor<T, 2> lse;

  Results(Index rows, const Sizes& z, T fill)
      : out({rows, z.N, z.U}, fill),
        d_q({rows, z.N, z.C}, fill),
        d_k({rows, z.N, z.C}, fill),
        d_v({rows, z.N, z.U}, fill),
        lse({rows, z.N}, fill) {}
};

struct Problem {
  Sizes z;
  Index T;
  Tensor<std::int32_t, 1> begin;
  Tensor<float, 3> q, k, v, d_out;
  Tensor<std::int32_t, 2> visible, chosen;
  double scale = 0.3;

  explicit Problem(Sizes sizes)
      : z(sizes),
        T(z.documents.rows()),
        begin(z.documents.begin()),
        q(draw<3>({T, z.N, z.C}, 1)),
        k(draw<3>({T, z.N, z.C}, 2)),
        v(draw<3>({T, z.N, z.U}, 3)),
        d_out(draw<3>({T, z.N, z.U}, 4)),
        visible(all_visible(begin)),
        chosen(draw_chosen(begin, z.K, 5, T / 2)) {}

  cpu::HeadsIn in() const { return {q, k, v, begin, scale}; }
  /// Queries [from, to) and the keys up to there.
  cpu::HeadsIn in(Index from, Index to) const {
    return {rows(q.view(), from, to), rows(k.view(), 0, to), rows(v.view(), 0, to), begin, scale};
  }

  /// The rows before and from `cut` on by themselves; what they give to the keys is added up.
  Results<float> run_by_parts(cpu::Tier tier, const Tensor<std::int32_t, 2>* over,
                              Index cut) const {
    Results<float> y(T, z, 99.0f), part(T, z, 99.0f);
    std::fill(y.d_k.begin(), y.d_k.end(), 0.0f);
    std::fill(y.d_v.begin(), y.d_v.end(), 0.0f);
    cpu::TrainMemory memory;
    for (const auto& [from, to] : {std::pair{Index{0}, cut}, std::pair{cut, T}}) {
      const cpu::HeadsOut out{rows(y.out.view(), from, to), rows(y.lse.view(), from, to)};
      const cpu::HeadsResult result{rows(d_out.view(), from, to), out.out, out.lse};
      const cpu::HeadsGradient d{rows(y.d_q.view(), from, to), rows(part.d_k.view(), 0, to),
                                 rows(part.d_v.view(), 0, to)};
      if (over) {
        const auto chosen_here = rows(over->view(), from, to);
        cpu::heads_attention({tier}, out, in(from, to), chosen_here, memory);
        cpu::heads_attention_backward({tier}, d, in(from, to), result, chosen_here, memory);
      } else {
        cpu::heads_attention({tier}, out, in(from, to), memory);
        cpu::heads_attention_backward({tier}, d, in(from, to), result, memory);
      }
      for (Index i = 0; i < d.d_k.size(); ++i) y.d_k.data()[i] += d.d_k.data[i];
      for (Index i = 0; i < d.d_v.size(); ++i) y.d_v.data()[i] += d.d_v.data[i];
    }
    return y;
  }

  Results<float> run(cpu::Tier tier, const Tensor<std::int32_t, 2>* over) const {
    Results<float> y(T, z, 99.0f);
    cpu::TrainMemory memory;
    const cpu::HeadsOut out{y.out, y.lse};
    const cpu::HeadsResult result{d_out, y.out, y.lse};
    const cpu::HeadsGradient d{y.d_q, y.d_k, y.d_v};
    if (over) {
      cpu::heads_attention({tier}, out, in(), *over, memory);
      cpu::heads_attention_backward({tier}, d, in(), result, *over, memory);
    } else {
      cpu::heads_attention({tier}, out, in(), memory);
      cpu::heads_attention_backward({tier}, d, in(), result, memory);
    }
    return y;
  }

  /// By the reference, in double.
  Results<double> expected(const Tensor<std::int32_t, 2>& over) const {
    Results<double> y(T, z, 0.0);
    Tensor<double, 3> kv({T, z.N, z.C + z.U}), d_kv({T, z.N, z.C + z.U}), q_rope({T, z.N, 0}),
        d_q_rope({T, z.N, 0});
    Tensor<double, 2> k_rope({T, 0}), d_k_rope({T, 0});
    for (Index t = 0; t < T; ++t)
      for (Index n = 0; n < z.N; ++n) {
        std::copy_n(&k(t, n, 0), z.C, &kv(t, n, 0));
        std::copy_n(&v(t, n, 0), z.U, &kv(t, n, 0) + z.C);
      }
    const auto q_nope = as_numbers<double>(q), d_result = as_numbers<double>(d_out);
    Tensor<Index, 2> keys(over.shape());
    std::copy(over.begin(), over.end(), keys.begin());
    reference::mla_expanded<double>(y.out, q_nope, q_rope, kv, k_rope, keys, scale);
    reference::mla_expanded_backward<double>({y.d_q, d_q_rope, d_kv, d_k_rope},
                                             {q_nope, q_rope, kv, k_rope, keys, scale}, d_result);
    for (Index t = 0; t < T; ++t)
      for (Index n = 0; n < z.N; ++n) {
        std::copy_n(&d_kv(t, n, 0), z.C, &y.d_k(t, n, 0));
        std::copy_n(&d_kv(t, n, 0) + z.C, z.U, &y.d_v(t, n, 0));
        y.lse(t, n) = lse_of(t, n, keys_of_row(over, t));
      }
    return y;
  }

  /// How far rounding may take each result.
  Results<double> bounds(const Tensor<std::int32_t, 2>& over, const Results<double>& y) const {
    Results<double> bound(T, z, 0.0);
    for (Index t = 0; t < T; ++t)
      for (Index n = 0; n < z.N; ++n) bound_row(bound, y, t, n, keys_of_row(over, t));
    return bound;
  }

 private:
  double score(Index t, Index n, Index s) const {
    return scale * dot_of(&q(t, n, 0), &k(s, n, 0), z.C);
  }
  double lse_of(Index t, Index n, const std::vector<Index>& keys) const {
    double m = -std::numeric_limits<double>::infinity(), sum = 0;
    for (Index s : keys) m = std::max(m, score(t, n, s));
    for (Index s : keys) sum += std::exp(score(t, n, s) - m);
    return keys.empty() ? m : m + std::log(sum);
  }

  /// Errors of one row add up to the bounds of its results, and to those of its keys'.
  void bound_row(Results<double>& bound, const Results<double>& y, Index t, Index n,
                 const std::vector<Index>& keys) const {
    if (keys.empty()) return;
    const Index count = static_cast<Index>(keys.size()), blocks = (T + 63) / 64;
    // A dot: a rounding a channel; the scale and the product with it.
    double score_error = 0, largest = 0;
    for (Index s : keys) {
      score_error = std::max(score_error, gamma(z.C + 2, u) * std::abs(scale) *
                                              size_of_dot(&q(t, n, 0), &k(s, n, 0), z.C));
      largest = std::max(largest, std::abs(score(t, n, s)));
    }
    // The weight of a key: its exp, and one exp more for each block that raises the maximum.
    const double weight_error = std::expm1(static_cast<double>(blocks + 1) *
                                           std::log1p(exp_error(2 * largest, score_error)));
    const double sum_error = weight_error + gamma(count + blocks, u);
    const double lse_error = sum_error + gamma(8, u) * (std::abs(y.lse(t, n)) + largest + 1);
    bound.lse(t, n) = lse_error;
    const double p_error = exp_error(largest + std::abs(y.lse(t, n)), score_error + lse_error);
    std::vector<double> out_error(static_cast<std::size_t>(z.U));
    for (Index i = 0; i < z.U; ++i)
      for (Index s : keys)
        out_error[static_cast<std::size_t>(i)] +=
            (3 * sum_error + gamma(count + 6, u)) *
            std::abs(std::exp(score(t, n, s) - y.lse(t, n)) * v(s, n, i));
    double delta = 0, delta_size = 0, delta_error = 0;
    for (Index i = 0; i < z.U; ++i) {
      bound.out(t, n, i) = out_error[static_cast<std::size_t>(i)];
      delta += d_out(t, n, i) * y.out(t, n, i);
      delta_size += std::abs(d_out(t, n, i) * y.out(t, n, i));
      delta_error += std::abs(d_out(t, n, i)) * out_error[static_cast<std::size_t>(i)];
    }
    delta_error += gamma(z.U, u) * delta_size;
    for (Index s : keys) {
      const double p = std::exp(score(t, n, s) - y.lse(t, n)),
                   d_p = dot_of(&d_out(t, n, 0), &v(s, n, 0), z.U),
                   d_p_size = size_of_dot(&d_out(t, n, 0), &v(s, n, 0), z.U);
      const double d_z = std::abs(scale * p * (d_p - delta));
      const double d_z_error =
          (p_error + gamma(4, u)) * d_z +
          std::abs(scale) * p * (1 + p_error) *
              (gamma(z.U + 1, u) * d_p_size + delta_error + u * std::abs(delta));
      for (Index c = 0; c < z.C; ++c) {
        bound.d_q(t, n, c) += (d_z_error + gamma(count, u) * d_z) * std::abs(k(s, n, c));
        bound.d_k(s, n, c) += (d_z_error + gamma(T, u) * d_z) * std::abs(q(t, n, c));
      }
      for (Index i = 0; i < z.U; ++i)
        bound.d_v(s, n, i) += (p_error + gamma(T, u)) * p * std::abs(d_out(t, n, i));
    }
  }
};

/// Small and odd; rows alone; documents longer than a block of queries and of keys.
const std::vector<Sizes> all_sizes = {
    {{{1}}, 1, 1, 1, 1},
    {{{5, 1, 1, 9}}, 3, 5, 3, 4},
    {{{70, 1, 131}}, 2, 20, 12, 24},
    {{{150}}, 9, 16, 32, 200},
};

void check(const Problem& problem, const Results<float>& y, const Tensor<std::int32_t, 2>& over) {
  const Results<double> expected = problem.expected(over), bound = problem.bounds(over, expected);
  CHECK(wrong(y.out, expected.out, bound.out) == 0);
  CHECK(wrong(y.d_q, expected.d_q, bound.d_q) == 0);
  CHECK(wrong(y.d_k, expected.d_k, bound.d_k) == 0);
  CHECK(wrong(y.d_v, expected.d_v, bound.d_v) == 0);
  if (problem.T > 1) CHECK(is_tight(expected.d_q, bound.d_q, 1e-2));
  CHECK(is_tight(expected.d_v, bound.d_v, 1e-3));
  for (Index t = 0; t < problem.T; ++t)
    for (Index n = 0; n < problem.z.N; ++n)
      if (over(t, 0) < 0)
        CHECK(y.lse(t, n) == -std::numeric_limits<float>::infinity());
      else
        CHECK(std::abs(y.lse(t, n) - expected.lse(t, n)) <= bound.lse(t, n));
}

bool same(const Results<float>& a, const Results<float>& b) {
  return same_bits(a.out, b.out) && same_bits(a.lse, b.lse) && same_bits(a.d_q, b.d_q) &&
         same_bits(a.d_k, b.d_k) && same_bits(a.d_v, b.d_v);
}

}  // namespace

TEST_CASE("attention in training is the reference's, forward and backward", "[cpu][train]") {
  for (const Sizes& sizes : all_sizes) {
    const Problem problem(sizes);
    for (const cpu::Tier tier : cpu::usable_tiers()) {
      INFO("rows " << problem.T << ", tier " << cpu::name_of(tier));
      check(problem, problem.run(tier, nullptr), problem.visible);
      check(problem, problem.run(tier, &problem.chosen), problem.chosen);
      check(problem, problem.run(tier, &problem.visible), problem.visible);
    }
  }
}

TEST_CASE("attention in training is the same bits for any number of threads", "[cpu][train]") {
  for (const Sizes& sizes : all_sizes) {
    const Problem problem(sizes);
    for (const auto* over :
         {static_cast<const Tensor<std::int32_t, 2>*>(nullptr), &problem.chosen}) {
      const Threads one(1);
      const Results<float> alone = problem.run(cpu::Cpu().tier, over);
      const Threads four(4);
      CHECK(same(problem.run(cpu::Cpu().tier, over), alone));
    }
  }
}

TEST_CASE("a part of the rows is attended to as it is in the whole", "[cpu][train]") {
  for (const Sizes& sizes : all_sizes) {
    const Problem problem(sizes);
    if (problem.T == 1) continue;
    for (const auto* over :
         {static_cast<const Tensor<std::int32_t, 2>*>(nullptr), &problem.chosen, &problem.visible})
      for (const Index cut : {Index{1}, 2 * problem.T / 3}) {
        INFO(problem.T << " rows, cut at " << cut);
        const Results<float> whole = problem.run(cpu::Cpu().tier, over),
                             y = problem.run_by_parts(cpu::Cpu().tier, over, cut);
        CHECK(same_bits(y.out, whole.out));
        CHECK(same_bits(y.lse, whole.lse));
        CHECK(same_bits(y.d_q, whole.d_q));
        check(problem, y, over ? *over : problem.visible);
      }
  }
}

TEST_CASE("attention in training without values gives the lse alone", "[cpu][train]") {
  const Problem with({{{70, 9}}, 2, 8, 4, 5}), without({{{70, 9}}, 2, 8, 0, 5});
  for (const auto* over : {static_cast<const Tensor<std::int32_t, 2>*>(nullptr), &with.chosen}) {
    Results<float> y(without.T, without.z, 99.0f);
    cpu::TrainMemory memory;
    if (over)
      cpu::heads_attention({}, {y.out, y.lse}, without.in(), *over, memory);
    else
      cpu::heads_attention({}, {y.out, y.lse}, without.in(), memory);
    CHECK(same_bits(y.lse, with.run(cpu::Cpu().tier, over).lse));
  }
}

TEST_CASE("attention in training refuses what it cannot mean", "[cpu][train]") {
  Problem problem({{{5, 4}}, 2, 3, 4, 3});
  cpu::TrainMemory memory;
  Results<float> y(problem.T, problem.z, 0.0f);
  const auto dense = [&] { cpu::heads_attention({}, {y.out, y.lse}, problem.in(), memory); };
  const auto sparse = [&] {
    cpu::heads_attention({}, {y.out, y.lse}, problem.in(), problem.chosen, memory);
  };
  problem.chosen(7, 1) = 4;
  CHECK_THROWS_WITH(sparse(), Catch::Contains("row 7 chose key 4, expected -1, or one of"));
  problem.begin(7) = 6;
  CHECK_THROWS_WITH(dense(),
                    "row 7 begins at row 6, expected 7 or, as the row before, 5; documents lie one "
                    "after the other");
  problem.k = Tensor<float, 3>({9, 2, 4});
  CHECK_THROWS_WITH(dense(), "k has shape (9, 2, 4), expected (9, 2, 3)");
}
