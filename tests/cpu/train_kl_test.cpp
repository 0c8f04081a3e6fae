// The indexer's loss in training, and its gradient, under every reading.
#include <limits>

#include "core/json.hpp"
#include "optimized/cpu/ops/index_kl.hpp"
#include "reference/ops/index_kl.hpp"
#include "tests/cpu/train_index.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

constexpr double u = verify::unit_roundoff_fp32;
using verify::exp_error;
using verify::gamma;

/// One reading of the loss, by the reference and with its errors.
class Loss {
 public:
  Loss(const IndexProblem& problem, const KlSemantics& semantics)
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

  /// The rows before and from `cut` on by themselves; what they give to the keys is added up.
  void check_parts(Index cut) const {
    Gradient<float> whole(p_.T, p_.z, 99.0f), y = whole, part = whole;
    const Tensor<double, 1> of_whole = run(cpu::Cpu().tier, &whole);
    Tensor<double, 1> got({p_.T}, 99.0);
    std::fill(y.d_k.begin(), y.d_k.end(), 0.0f);
    cpu::TrainMemory memory;
    const Tensor<float, 2>& lse = teacher_lse();
    for (const auto& [from, to] : {std::pair{Index{0}, cut}, std::pair{cut, p_.T}}) {
      cpu::IndexGradient d = p_.gradient(y);
      d = {rows(d.d_q, from, to), rows(part.d_k.view(), 0, to),
           p_.uniform ? d.d_w : rows(d.d_w, from, to)};
      cpu::index_kl({}, {rows(got.view(), from, to), d},
                    {p_.in(from, to),
                     {rows(p_.teacher_q.view(), from, to), rows(p_.teacher_k.view(), 0, to),
                      rows(lse.view(), from, to), p_.teacher_scale},
                     rows(p_.chosen.view(), from, to),
                     rows(p_.weight.view(), from, to),
                     semantics_},
                    memory);
      for (Index i = 0; i < d.d_k.size(); ++i) y.d_k.data()[i] += d.d_k.data[i];
    }
    CHECK(std::equal(got.begin(), got.end(), of_whole.begin()));
    CHECK(same_bits(y.d_q, whole.d_q));
    CHECK(same_bits(y.d_w, whole.d_w));
    p_.check(y, d_scores, d_error);
  }

  Tensor<double, 1> run(cpu::Tier tier, Gradient<float>* d) const {
    Tensor<double, 1> got({p_.T}, 99.0);
    cpu::TrainMemory memory;
    cpu::index_kl({tier}, {got, d ? p_.gradient(*d) : cpu::IndexGradient{}},
                  {p_.in(),
                   {p_.teacher_q, p_.teacher_k, teacher_lse(), p_.teacher_scale},
                   p_.chosen,
                   p_.weight,
                   semantics_},
                  memory);
    return got;
  }

 private:
  const Tensor<float, 2>& teacher_lse() const {
    const bool chosen = semantics_.teacher_softmax == KlSemantics::Keys::chosen;
    return chosen ? p_.lse_chosen : p_.lse_visible;
  }
  const ChosenKeys& keys(KlSemantics::Keys set) const {
    return set == KlSemantics::Keys::chosen ? p_.chosen : p_.visible;
  }

  /// u by the reference, and the rows that the student sees.
  void find_mass() {
    const auto q = as_numbers<double>(p_.teacher_q), k = as_numbers<double>(p_.teacher_k);
    const Tensor<double, 3> q_rope({p_.T, p_.z.N, 0});
    const Tensor<double, 2> k_rope({p_.T, 0});
    const auto as_index = [](const ChosenKeys& x) {
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

  const IndexProblem& p_;
  KlSemantics semantics_;
  double scale_;
  Tensor<double, 2> mass_, scores_;
  Tensor<Index, 2> student_;

 public:
  Tensor<double, 1> loss, loss_bound;
  Tensor<double, 2> d_scores, d_error;
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
  for (const IndexSizes& sizes : index_sizes) {
    const IndexProblem problem(sizes);
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
      const IndexProblem problem(index_sizes.back(), relu, uniform);
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
  const IndexProblem problem(index_sizes.back());
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

TEST_CASE("a part of the rows learns as it does in the whole", "[cpu][train]") {
  for (const IndexSizes& sizes : {index_sizes[1], index_sizes.back()}) {
    const IndexProblem problem(sizes);
    for (const KlSemantics& semantics : all_semantics()) {
      INFO(to_json(semantics).dump() << ", rows " << problem.T);
      Loss(problem, semantics).check_parts(2 * problem.T / 3);
    }
  }
}

TEST_CASE("the indexer's loss in training refuses what it cannot mean", "[cpu][train]") {
  IndexProblem problem(index_sizes[1]);
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
