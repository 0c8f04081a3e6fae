// The indexer in training: its selection, the gradient of its scores, its loss under every reading.
#include <limits>
#include <optional>

#include "core/json.hpp"
#include "optimized/cpu/ops/index_recall.hpp"
#include "reference/ops/index_kl.hpp"
#include "reference/ops/indexer_scores.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/train_problem.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

constexpr double u = verify::unit_roundoff_fp32;
using verify::exp_error;
using verify::gamma;
using Keys = Tensor<std::int32_t, 2>;

struct Sizes {
  Packed documents;
  Index H, D, N, C, K;
};

template <class T>
struct Gradient {
  Tensor<T, 3> d_q;
  Tensor<T, 2> d_k, d_w;
  Gradient(Index rows, const Sizes& z, T fill)
      : d_q({rows, z.H, z.D}, fill), d_k({rows, z.D}, fill), d_w({rows, z.H}, fill) {}
};

bool same(const Gradient<float>& a, const Gradient<float>& b) {
  return same_bits(a.d_q, b.d_q) && same_bits(a.d_k, b.d_k) && same_bits(a.d_w, b.d_w);
}

/// The indexer and what it learns from, with their errors.
struct Problem {
  Sizes z;
  Index T;
  bool relu = true, uniform = false;
  Indexer indexer;
  Tensor<std::int32_t, 1> begin;
  Tensor<float, 3> q, teacher_q, teacher_k;
  Tensor<float, 2> k, w, lse_visible, lse_chosen;
  std::vector<Index> documents;
  Keys visible, chosen;
  Tensor<float, 1> weight;
  double teacher_scale = 0.3;

  explicit Problem(Sizes sizes, bool with_relu = true, bool uniform_weights = false)
      : z(sizes),
        T(z.documents.rows()),
        relu(with_relu),
        uniform(uniform_weights),
        begin(z.documents.begin()),
        q(draw<3>({T, z.H, z.D}, 11)),
        teacher_q(draw<3>({T, z.N, z.C}, 12)),
        teacher_k(draw<3>({T, z.N, z.C}, 13)),
        k(draw<2>({T, z.D}, 14)),
        w(uniform ? Tensor<float, 2>({T, z.H}, 1.0f) : draw<2>({T, z.H}, 15)),
        documents(begin.begin(), begin.end()),
        visible(all_visible(begin)),
        chosen(draw_chosen(begin, z.K, 16)),
        weight({T}) {
    indexer.activation = relu ? Indexer::Activation::relu : Indexer::Activation::none;
    indexer.dot_scale = 1 / std::sqrt(static_cast<double>(z.D));
    indexer.weight_scale = 1 / std::sqrt(static_cast<double>(z.H));
    // Rows without weight, and weights that are no powers of two.
    for (Index t = 0; t < T; ++t) weight(t) = t % 7 == 3 ? 0 : 0.3f + 0.01f * static_cast<float>(t);
    lse_visible = lse_over(visible);
    lse_chosen = lse_over(chosen);
  }

  cpu::IndexIn in() const {
    return {q,
            k,
            uniform ? View<const float, 2>{} : w.view(),
            begin,
            indexer.dot_scale,
            indexer.weight_scale,
            relu};
  }
  cpu::IndexGradient gradient(Gradient<float>& d) const {
    return {d.d_q, d.d_k, uniform ? View<float, 2>{} : d.d_w.view()};
  }

  double dot(Index t, Index h, Index s) const {
    return indexer.dot_scale * dot_of(&q(t, h, 0), &k(s, 0), z.D);
  }
  double dot_error(Index t, Index h, Index s) const {
    return gamma(z.D + 2, u) * indexer.dot_scale * size_of_dot(&q(t, h, 0), &k(s, 0), z.D);
  }
  double act(double a) const { return relu ? std::max(0.0, a) : a; }
  double score(Index t, Index s) const {
    double sum = 0;
    for (Index h = 0; h < z.H; ++h) sum += indexer.weight_scale * w(t, h) * act(dot(t, h, s));
    return sum;
  }
  double score_error(Index t, Index s) const {
    double sum = 0;
    for (Index h = 0; h < z.H; ++h)
      sum += std::abs(indexer.weight_scale * w(t, h)) *
             (dot_error(t, h, s) + gamma(z.H + 4, u) * std::abs(act(dot(t, h, s))));
    return sum;
  }
  double teacher_score(Index t, Index n, Index s) const {
    return teacher_scale * dot_of(&teacher_q(t, n, 0), &teacher_k(s, n, 0), z.C);
  }
  double teacher_error(Index t, Index n, Index s) const {
    return gamma(z.C + 2, u) * teacher_scale *
           size_of_dot(&teacher_q(t, n, 0), &teacher_k(s, n, 0), z.C);
  }

  Tensor<double, 2> scores() const {
    Tensor<double, 2> all({T, T}, -std::numeric_limits<double>::infinity());
    for (Index t = 0; t < T; ++t)
      for (Index s = begin(t); s <= t; ++s) all(t, s) = score(t, s);
    return all;
  }

  /// By the reference, from the gradient of the scores.
  Gradient<double> expected(const Tensor<double, 2>& d_scores) const {
    Gradient<double> d(T, z, 0.0);
    const auto q64 = as_numbers<double>(q);
    const auto k64 = as_numbers<double>(k), w64 = as_numbers<double>(w);
    reference::indexer_scores_backward<double>({d.d_q, d.d_k, d.d_w}, {q64, k64, w64}, d_scores,
                                               indexer, {0, documents});
    return d;
  }

  /// Of the gradients, where d_scores is wrong by up to `error`.
  Gradient<double> bounds(const Tensor<double, 2>& d_scores, const Tensor<double, 2>& error) const {
    Gradient<double> bound(T, z, 1e-30);
    const double b = indexer.weight_scale, c = indexer.dot_scale;
    for (Index t = 0; t < T; ++t)
      for (Index s = begin(t); s <= t; ++s)
        for (Index h = 0; h < z.H; ++h) {
          const double a = dot(t, h, s), a_error = dot_error(t, h, s);
          const bool flips = relu && std::abs(a) <= a_error;  // rounding decides whether a > 0
          if (relu && a < 0 && !flips) continue;
          const double d = std::abs(d_scores(t, s)), d_error = error(t, s) + (flips ? d : 0);
          bound.d_w(t, h) += b * (std::abs(a) * (d_error + gamma(T + 4, u) * d) + a_error * d);
          const double d_a = c * b * std::abs(w(t, h));
          for (Index i = 0; i < z.D; ++i) {
            bound.d_q(t, h, i) += d_a * (d_error + gamma(T + 6, u) * d) * std::abs(k(s, i));
            bound.d_k(s, i) += d_a * (d_error + gamma(T * z.H + 6, u) * d) * std::abs(q(t, h, i));
          }
        }
    return bound;
  }

  void check(const Gradient<float>& got, const Tensor<double, 2>& d_scores,
             const Tensor<double, 2>& error) const {
    const Gradient<double> y = expected(d_scores), bound = bounds(d_scores, error);
    CHECK(wrong(got.d_q, y.d_q, bound.d_q) == 0);
    CHECK(wrong(got.d_k, y.d_k, bound.d_k) == 0);
    if (!uniform) CHECK(wrong(got.d_w, y.d_w, bound.d_w) == 0);
    if (T > 1) CHECK(is_tight(y.d_k, bound.d_k, 1e-2));
  }

 private:
  Tensor<float, 2> lse_over(const Keys& keys) const {
    Tensor<float, 2> lse({T, z.N});
    for (Index t = 0; t < T; ++t)
      for (Index n = 0; n < z.N; ++n) {
        double sum = 0;
        for (Index s : keys_of_row(keys, t)) sum += std::exp(teacher_score(t, n, s));
        lse(t, n) = static_cast<float>(std::log(sum));
      }
    return lse;
  }
};

/// One reading of the loss, by the reference and with its errors.
class Loss {
 public:
  Loss(const Problem& problem, const KlSemantics& semantics)
      : p_(problem),
        semantics_(semantics),
        scale_(semantics.student_scaled
                   ? 1
                   : 1 / (problem.indexer.dot_scale * problem.indexer.weight_scale)),
        loss({problem.T}),
        loss_bound({problem.T}),
        d_scores({problem.T, problem.T}),
        d_error({problem.T, problem.T}) {
    find_mass();
    const reference::KlInputs<double> in{scores_, mass_, student_, scale_};
    std::vector<double> weights(problem.weight.begin(), problem.weight.end());
    reference::index_kl_backward<double>(d_scores, in, weights, semantics);
    for (Index t = 0; t < p_.T; ++t) {
      std::vector<double> alone(static_cast<std::size_t>(p_.T));
      alone[static_cast<std::size_t>(t)] = p_.weight(t) != 0;
      loss(t) = reference::index_kl<double>(in, alone, semantics);
      bound_row(t);
    }
  }

  Gradient<float> check(cpu::Tier tier, bool with_gradient = true) const {
    Gradient<float> d(p_.T, p_.z, 99.0f);
    const Tensor<double, 1> got = run(tier, with_gradient ? &d : nullptr);
    for (Index t = 0; t < p_.T; ++t) CHECK(std::abs(got(t) - loss(t)) <= loss_bound(t));
    if (with_gradient) p_.check(d, d_scores, d_error);
    return d;
  }

  Tensor<double, 1> run(cpu::Tier tier, Gradient<float>* d) const {
    const bool chosen = semantics_.teacher_softmax == KlSemantics::Keys::chosen;
    Tensor<double, 1> got({p_.T}, 99.0);
    cpu::TrainMemory memory;
    cpu::index_kl(
        {tier}, {got, d ? p_.gradient(*d) : cpu::IndexGradient{}},
        {p_.in(),
         {p_.teacher_q, p_.teacher_k, chosen ? p_.lse_chosen : p_.lse_visible, p_.teacher_scale},
         p_.chosen,
         p_.weight,
         semantics_},
        memory);
    return got;
  }

 private:
  const Keys& keys(KlSemantics::Keys set) const {
    return set == KlSemantics::Keys::chosen ? p_.chosen : p_.visible;
  }

  /// u by the reference, and the rows that the student sees.
  void find_mass() {
    const auto q = as_numbers<double>(p_.teacher_q), k = as_numbers<double>(p_.teacher_k);
    const Tensor<double, 3> q_rope({p_.T, p_.z.N, 0});
    const Tensor<double, 2> k_rope({p_.T, 0});
    const auto as_index = [](const Keys& x) {
      Tensor<Index, 2> y(x.shape());
      std::copy(x.begin(), x.end(), y.begin());
      return y;
    };
    mass_ = Tensor<double, 2>({p_.T, p_.T});
    const Tensor<Index, 2> softmax = as_index(keys(semantics_.teacher_softmax)),
                           kept = as_index(keys(semantics_.teacher_keys));
    reference::attention_mass<double>(mass_, {q, q_rope, k, k_rope, softmax, p_.teacher_scale},
                                      kept);
    student_ = as_index(keys(semantics_.student_keys));
    scores_ = p_.scores();
  }

  /// Relative error of a key's mass: of its exp, from a dot and an lse that are rounded.
  double mass_error(Index t, Index s) const {
    const bool chosen = semantics_.teacher_softmax == KlSemantics::Keys::chosen;
    double most = 0;
    for (Index n = 0; n < p_.z.N; ++n) {
      const double lse = std::abs((chosen ? p_.lse_chosen : p_.lse_visible)(t, n));
      most = std::max(most, exp_error(std::abs(p_.teacher_score(t, n, s)) + lse,
                                      p_.teacher_error(t, n, s) + u * lse));
    }
    return most + gamma(p_.z.N + 4, u);
  }

  void bound_row(Index t) {
    loss_bound(t) = 1e-30;
    const std::vector<Index> keys = keys_of_row(this->keys(semantics_.student_keys), t);
    if (p_.weight(t) == 0) return;
    const Index n = static_cast<Index>(keys.size());
    double top = -std::numeric_limits<double>::infinity(), score_error = 0, p_error = 0, sum_u = 0;
    for (Index s : keys) {
      top = std::max(top, scale_ * scores_(t, s));
      score_error = std::max(score_error, scale_ * p_.score_error(t, s));
      p_error = std::max(p_error, 2 * mass_error(t, s) + gamma(p_.T, u));
      sum_u += mass_(t, s);
    }
    double sum = 0, largest = 0;
    for (Index s : keys) {
      sum += std::exp(scale_ * scores_(t, s) - top);
      largest = std::max(largest, std::abs(scale_ * scores_(t, s)));
    }
    const double lse = top + std::log(sum);
    const double lse_error = exp_error(2 * largest, score_error) + gamma(n, u) +
                             gamma(8, u) * (std::abs(lse) + largest + 1);
    const double log_q_error = score_error + lse_error + gamma(3, u) * (largest + std::abs(lse));
    const double q_error = std::expm1(gamma(verify::function_roundings, u) + log_q_error);
    double sum_r = 0, sum_r_error = 0;
    std::vector<double> p(keys.size()), q(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      p[i] = mass_(t, keys[i]) / std::max(sum_u + semantics_.l1.added, semantics_.l1.least);
      q[i] = std::exp(scale_ * scores_(t, keys[i]) - lse);
      const double guarded_q = std::max(q[i] + semantics_.log_q.added, semantics_.log_q.least),
                   guarded_p = std::max(p[i] + semantics_.log_p.added, semantics_.log_p.least);
      const bool exact = semantics_.log_q == Guard{};
      const double log_q = exact ? scale_ * scores_(t, keys[i]) - lse : std::log(guarded_q),
                   log_p = p[i] > 0 ? std::log(guarded_p) : 0;
      const double terms = std::abs(log_p) + std::abs(log_q);
      loss_bound(t) += p[i] * (p_error * (1 + std::abs(log_p - log_q)) + gamma(n + 8, u) * terms +
                               (exact ? log_q_error : q_error));
      sum_r += p[i];
      sum_r_error += p[i] * (r_error(p_error, q_error, q[i]) + gamma(n + 4, u));
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const double factor = std::abs(p_.weight(t) * scale_);
      d_error(t, keys[i]) = factor * (p[i] * (r_error(p_error, q_error, q[i]) + gamma(6, u)) +
                                      q[i] * ((q_error + gamma(6, u)) * sum_r + sum_r_error));
    }
  }
  /// Relative to p.
  double r_error(double p_error, double q_error, double q) const {
    const Guard& guard = semantics_.log_q;
    if (guard == Guard{}) return p_error;
    const bool flips = std::abs(q + guard.added - guard.least) <= 2 * q_error * guard.least;
    return p_error + 2 * q_error + gamma(4, u) + (flips ? 1 : 0);
  }

  const Problem& p_;
  KlSemantics semantics_;
  double scale_;
  Tensor<double, 2> mass_, scores_;
  Tensor<Index, 2> student_;

 public:
  Tensor<double, 1> loss, loss_bound;
  Tensor<double, 2> d_scores, d_error;
};

const std::vector<Sizes> all_sizes = {
    {{{1}}, 1, 1, 1, 1, 1},
    {{{5, 1, 1, 9}}, 3, 5, 2, 3, 4},
    {{{30, 1, 71}}, 4, 32, 9, 16, 12},
};

std::vector<KlSemantics> all_semantics() {
  std::vector<KlSemantics> all;
  for (const char* name : {"paper", "maxtext", "megatron", "hf-fork", "prime-rl", "xtuner"}) {
    all.push_back(semantics_named(name));
    all.push_back(in_warmup(all.back()));
  }
  // What no preset has: a teacher that is cut off, one that is wider than its softmax, a student
  // whose probabilities are clamped.
  KlSemantics cut;
  cut.teacher_softmax = KlSemantics::Keys::visible;
  all.push_back(cut);
  cut.teacher_softmax = KlSemantics::Keys::chosen;
  cut.teacher_keys = cut.student_keys = KlSemantics::Keys::visible;
  all.push_back(cut);
  KlSemantics clamped;
  clamped.log_q = {0.001, 0.06};
  all.push_back(clamped);
  all.push_back(in_warmup(clamped));
  return all;
}

}  // namespace

TEST_CASE("the indexer's loss in training is the reference's under every reading", "[cpu][train]") {
  for (const Sizes& sizes : all_sizes) {
    const Problem problem(sizes);
    for (const KlSemantics& semantics : all_semantics()) {
      const Loss loss(problem, semantics);
      for (const cpu::Tier tier : cpu::usable_tiers()) {
        INFO(to_json(semantics).dump() << ", rows " << problem.T << ", " << cpu::name_of(tier));
        loss.check(tier);
        loss.check(tier, false);
      }
    }
  }
}

TEST_CASE("an indexer without relu and with equal heads learns alike", "[cpu][train]") {
  for (const bool relu : {false, true})
    for (const bool uniform : {false, true}) {
      const Problem problem(all_sizes.back(), relu, uniform);
      for (const char* name : {"paper", "hf-fork"})
        for (const KlSemantics& semantics :
             {semantics_named(name), in_warmup(semantics_named(name))}) {
          INFO(name << ", relu " << relu << ", uniform " << uniform);
          const Gradient<float> d = Loss(problem, semantics).check(cpu::Cpu().tier);
          if (uniform)
            for (float x : d.d_w) CHECK(x == 99.0f);
        }
    }
}

TEST_CASE("the indexer's loss is the same bits for any number of threads", "[cpu][train]") {
  const Problem problem(all_sizes.back());
  for (const KlSemantics& semantics : all_semantics()) {
    const Loss loss(problem, semantics);
    Gradient<float> alone(problem.T, problem.z, 99.0f), together = alone;
    const Threads one(1);
    const Tensor<double, 1> value = loss.run(cpu::Cpu().tier, &alone);
    const Threads four(4);
    CHECK(same_bits(loss.run(cpu::Cpu().tier, &together), value));
    CHECK(same(together, alone));
  }
}

TEST_CASE("the gradient of chosen index scores is the reference's", "[cpu][train]") {
  for (const Sizes& sizes : all_sizes)
    for (const bool relu : {false, true}) {
      const Problem problem(sizes, relu);
      const Tensor<float, 2> d_scores = draw<2>({problem.T, problem.z.K}, 17);
      Tensor<double, 2> all({problem.T, problem.T});
      for (Index t = 0; t < problem.T; ++t)
        for (Index i = 0; i < problem.z.K; ++i)
          if (problem.chosen(t, i) >= 0) all(t, problem.chosen(t, i)) = d_scores(t, i);
      const Tensor<double, 2> exact({problem.T, problem.T});
      std::optional<Gradient<float>> first;
      for (const int threads : {1, 4}) {
        const Threads scope(threads);
        Gradient<float> d(problem.T, problem.z, 99.0f);
        cpu::TrainMemory memory;
        cpu::index_scores_backward({}, problem.gradient(d), problem.in(), d_scores, problem.chosen,
                                   memory);
        problem.check(d, all, exact);
        if (first) CHECK(same(*first, d));
        first = d;
      }
    }
}

TEST_CASE("training selects the keys of largest scores, and of equal ones the first",
          "[cpu][train]") {
  // Multiples of 1/8: every sum is exact, and many are equal.
  for (const bool uniform : {false, true}) {
    Problem problem({{{40, 1, 60}}, 4, 16, 1, 1, 9}, true, uniform);
    for (Index i = 0; i < problem.q.size(); ++i)
      problem.q.data()[i] = static_cast<float>(dyadic(18, static_cast<std::uint64_t>(i) % 64));
    for (Index i = 0; i < problem.k.size(); ++i)
      problem.k.data()[i] = static_cast<float>(dyadic(19, static_cast<std::uint64_t>(i) % 80));
    if (!uniform)
      for (Index i = 0; i < problem.w.size(); ++i)
        problem.w.data()[i] = static_cast<float>(dyadic(20, static_cast<std::uint64_t>(i)));
    Keys chosen({problem.T, problem.z.K}, 99);
    cpu::TrainMemory memory;
    cpu::index_topk({}, chosen, problem.in(), memory);
    for (Index t = 0; t < problem.T; ++t) {
      std::vector<Index> order(static_cast<std::size_t>(t + 1 - problem.begin(t)));
      for (std::size_t i = 0; i < order.size(); ++i)
        order[i] = problem.begin(t) + static_cast<Index>(i);
      std::stable_sort(order.begin(), order.end(),
                       [&](Index a, Index b) { return problem.score(t, a) > problem.score(t, b); });
      order.resize(std::min(order.size(), static_cast<std::size_t>(problem.z.K)));
      std::sort(order.begin(), order.end());
      CHECK(keys_of_row(chosen, t) == order);
    }
  }
}

TEST_CASE("recall is the share of the teacher's mass", "[cpu][train]") {
  for (const bool relu : {false, true}) {
    const Problem problem({{{90, 1, 60}}, 3, 16, 4, 8, 1}, relu);
    constexpr Index K = 7;
    cpu::TrainMemory memory;
    const cpu::IndexRecall y = cpu::index_recall(
        {}, problem.in(),
        {problem.teacher_q, problem.teacher_k, problem.lse_visible, problem.teacher_scale}, K,
        memory);
    cpu::IndexRecall expected;
    double error = 0;
    for (Index t = 0; t < problem.T; ++t) {
      const Index first = problem.begin(t), n = t + 1 - first;
      if (n <= 4 * K) continue;
      ++expected.rows;
      std::vector<double> mass, scores;
      Index dead = 0;
      for (Index s = first; s <= t; ++s) {
        double sum = 0;
        for (Index h = 0; h < problem.z.N; ++h) {
          const double a = problem.teacher_score(t, h, s), lse = problem.lse_visible(t, h);
          sum += std::exp(a - lse);
          error = std::max(error, exp_error(std::abs(a) + std::abs(lse),
                                            problem.teacher_error(t, h, s) + u * std::abs(lse)));
        }
        mass.push_back(sum / static_cast<double>(problem.z.N));
        scores.push_back(problem.score(t, s));
        for (Index h = 0; h < problem.z.H; ++h) dead += !(problem.dot(t, h, s) > 0);
      }
      const auto kept = [&](const std::vector<double>& x) {
        std::vector<std::size_t> order(x.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return x[a] > x[b]; });
        double sum = 0;
        for (std::size_t i = 0; i < K; ++i) sum += mass[order[i]];
        return sum;
      };
      expected.indexer += kept(scores);
      expected.oracle += kept(mass);
      expected.random += static_cast<double>(K) / static_cast<double>(n);
      for (std::size_t i = mass.size() - K; i < mass.size(); ++i) expected.recent += mass[i];
      for (double p : mass) expected.teacher_entropy -= p * std::log(p);
      expected.dead += static_cast<double>(dead) / static_cast<double>(n * problem.z.H);
    }
    REQUIRE(y.rows == expected.rows);
    const double rows = static_cast<double>(y.rows);
    // Every share is a sum of masses; x log x changes by at most (1 + log n) times x's change.
    const double bound = error + gamma(problem.z.N + 4, u);
    const double sums = gamma(problem.T, verify::unit_roundoff_fp64);  // of shares up to 1
    CHECK(std::abs(y.indexer - expected.indexer / rows) <= bound);
    CHECK(std::abs(y.oracle - expected.oracle / rows) <= bound);
    CHECK(std::abs(y.recent - expected.recent / rows) <= bound);
    CHECK(std::abs(y.random - expected.random / rows) <= sums);
    CHECK(std::abs(y.teacher_entropy - expected.teacher_entropy / rows) <=
          bound * (1 + std::log(static_cast<double>(problem.T))) * 2);
    CHECK(std::abs(y.dead - expected.dead / rows) <= sums);
    CHECK(bound < 1e-4);
  }
}

TEST_CASE("the indexer's loss in training refuses what it cannot mean", "[cpu][train]") {
  Problem problem(all_sizes[1]);
  KlSemantics infinite;
  infinite.teacher_keys = KlSemantics::Keys::visible;
  Tensor<double, 1> loss({problem.T});
  cpu::TrainMemory memory;
  const auto run = [&](KlSemantics semantics) {
    cpu::index_kl({}, {loss, {}},
                  {problem.in(),
                   {problem.teacher_q, problem.teacher_k, problem.lse_chosen, 1},
                   problem.chosen,
                   problem.weight,
                   semantics},
                  memory);
  };
  CHECK_THROWS_WITH(run(infinite), Catch::Contains("the KL is infinite"));
  problem.indexer.dot_scale = 0;
  CHECK_THROWS_WITH(run({}), "the indexer's dot_scale is 0.000000, expected a positive number");
}
