// The indexer's loss and its gradient, under every reading of core/kl_semantics.hpp.
//
// The teacher: u = sum_n exp( z - lse ) of every key, with the errors of scores, of the lse that
// the case gives in fp32, and of exp. sum_s u is the number of heads, or what the kept keys sum to.
// The student: weights of scores that are wrong. Guards are maxima: where q lies within its error
// of one, either side is allowed.
#include <algorithm>

#include "reference/ops/index_kl.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/indexer_kl.hpp"
#include "verify/kernels/cases/indexer_training.hpp"
#include "verify/kernels/cases/mla.hpp"

namespace dsa::verify::kernels {
namespace {

using KeySet = KlSemantics::Keys;
using Keys = std::vector<std::vector<Index>>;

constexpr double u = unit_roundoff_fp32;

struct Plan {
  TrainedIndexPlan index;
  Index N, C;  // of the attention that is the teacher
  KlSemantics semantics;
};

struct Teacher {
  Tensor<double, 3> q, k;
  Tensor<double, 2> lse;  // of the case, as it is without rounding
  double scale;
};

/// One case while it is posed.
struct Problem {
  Case& c;
  KlSemantics semantics;
  Keys softmax, kept, student;  // kept: those of the teacher's keys that its softmax is over
  Teacher teacher;
  double scale;                            // of the student's scores
  Tensor<double, 2> scores, scores_error;  // (T, T)
  Tensor<double, 1> weight;
};

/// scale q.k of the teacher's head.
Rounded teacher_score(const Teacher& in, Index t, Index n, Index s) {
  Sum dot;
  for (Index i = 0; i < in.q.shape()[2]; ++i) dot.add(in.q(t, n, i), in.k(s, n, i));
  return times(dot.total(), in.scale);
}

/// The mass that row t gives to key s.
Rounded mass(const Teacher& in, Index t, Index s) {
  Sum sum;
  for (Index n = 0; n < in.q.shape()[1]; ++n) {
    const Rounded z = teacher_score(in, t, n, s);
    const double lse = in.lse(t, n);
    sum.add(exp_of({z.x - lse, z.error + u * std::abs(lse)}, std::abs(z.x) + std::abs(lse)));
  }
  return sum.total();
}

/// max( x + added, least ).
Rounded guarded(const Guard& guard, Rounded x) {
  const Rounded moved = guard.added == 0 ? x : x + guard.added;
  return {std::max(moved.x, guard.least), moved.error};
}

/// What row t's loss is made of, key by key of the student.
struct Row {
  std::vector<Rounded> p, log_q, q;

  Row(const Problem& in, Index t) {
    const auto row = static_cast<std::size_t>(t);
    const std::vector<Index>& kept = in.kept[row];
    Sum all;
    for (const Index s : kept) all.add(mass(in.teacher, t, s));
    const Rounded sum = guarded(in.semantics.l1, all.total());
    std::vector<double> score, error;
    for (const Index s : in.student[row]) {
      score.push_back(in.scale * in.scores(t, s));
      error.push_back(in.scale * in.scores_error(t, s));
      const bool taught = std::find(kept.begin(), kept.end(), s) != kept.end();
      p.push_back(taught ? rounded(mass(in.teacher, t, s) / sum, 2) : Rounded());
    }
    const Weights w = weights_of(score, error);
    for (std::size_t i = 0; i < score.size(); ++i) {
      const double size = std::abs(score[i]) + std::abs(w.lse);
      log_q.push_back({score[i] - w.lse, error[i] + w.lse_error + gamma(3, u) * size});
      q.push_back(exp_of(log_q.back(), size));
    }
  }
};

/// p ( log p - log q ), guarded. Below 1e-30 of p, where a kernel may take it for 0, all of it.
Rounded loss_of(const KlSemantics& semantics, Rounded p, Rounded log_q, Rounded q) {
  if (p.x == 0) return p;
  const Rounded of_q = semantics.log_q == Guard{} ? log_q : log_of(guarded(semantics.log_q, q));
  if (p.x < 1e-30) return {p.x * (std::log(p.x) - of_q.x), 200 * p.size() * (1 + of_q.size())};
  return p * (log_of(guarded(semantics.log_p, p)) - of_q);
}

/// r = -p q g'(q) / g(q).
Rounded slope_of(const Guard& guard, Rounded p, Rounded q) {
  if (guard == Guard{}) return -p;
  const Rounded moved = q + guard.added;
  const Rounded r = guard.added == 0 ? -p : -(p * (q / moved));
  if (std::abs(moved.x - guard.least) <= moved.error) return {r.x, 2 * r.size()};
  return moved.x < guard.least ? Rounded() : r;
}

/// The errors of d_scores of row t, and of its loss.
double bound_row(const Problem& in, Index t, View<double, 1> d_scores) {
  if (in.weight(t) == 0) return 0;
  const Row row(in, t);
  Sum loss, all;
  std::vector<Rounded> r;
  for (std::size_t i = 0; i < row.p.size(); ++i) {
    loss.add(loss_of(in.semantics, row.p[i], row.log_q[i], row.q[i]));
    r.push_back(slope_of(in.semantics.log_q, row.p[i], row.q[i]));
    all.add(r.back());
  }
  for (std::size_t i = 0; i < r.size(); ++i) {
    const Rounded d = Rounded(in.weight(t)) * in.scale * (r[i] - row.q[i] * all.total());
    d_scores(in.student[static_cast<std::size_t>(t)][i]) = rounded(d, 2).error;
  }
  const Rounded total = loss.total();
  return rounded(total).error;
}

void set_answers(Problem& in, const TrainedIndex& index) {
  const Index T = in.weight.size(), N = in.teacher.q.shape()[1];
  const Tensor<double, 3> no_rope({T, N, 0});
  const Tensor<double, 2> no_key({T, 0});
  const Tensor<Index, 2> softmax = as_chosen(in.softmax), kept = as_chosen(in.kept),
                         student = as_chosen(in.student);
  Tensor<double, 2> u_of({T, T}), d_scores({T, T}), error({T, T});
  reference::attention_mass<double>(
      u_of, {in.teacher.q, no_rope, in.teacher.k, no_key, softmax, in.teacher.scale}, kept);
  const reference::KlInputs<double> kl{in.scores, u_of, student, in.scale};
  const std::vector<double> weights(in.weight.begin(), in.weight.end());
  reference::index_kl_backward<double>(d_scores, kl, weights, in.semantics);
  std::vector<double> loss, loss_error;
  for (Index t = 0; t < T; ++t) {
    std::vector<double> alone(weights.size());
    alone[static_cast<std::size_t>(t)] = in.weight(t) != 0;
    loss.push_back(reference::index_kl<double>(kl, alone, in.semantics));
    loss_error.push_back(bound_row(in, t, error.view()[t]));
  }
  in.c.out["loss"] = Array(Dtype::f32, {T});
  answer(in.c, "loss", std::move(loss), std::move(loss_error), false);
  index.set_gradient(in.c, d_scores, error);
}

/// Queries, keys and the log of the softmax's sum over the keys it has.
Teacher draw_teacher(Case& c, Draw& draw, const Plan& plan, const Keys& softmax) {
  const Index T = rows_of(plan.index.documents), N = plan.N, C = plan.C;
  c.scalars["scale"] = 0.9 / std::sqrt(static_cast<double>(C));
  c.in["attention_q"] = draw.numbers(Dtype::f32, {T, N, C});
  c.in["attention_k"] = draw.numbers(Dtype::f32, {T, N, C});
  Teacher teacher{widen<3>(c.in["attention_q"]), widen<3>(c.in["attention_k"]),
                  Tensor<double, 2>({T, N}), c.scalar("scale")};
  for (Index t = 0; t < T; ++t)
    for (Index n = 0; n < N; ++n) {
      std::vector<double> z;
      for (const Index s : softmax[static_cast<std::size_t>(t)])
        z.push_back(teacher_score(teacher, t, n, s).x);
      teacher.lse(t, n) = weights_of(z, std::vector<double>(z.size())).lse;
    }
  c.in["attention_lse"] = Array(Dtype::f32, {T, N}, list(teacher.lse));
  return teacher;
}

void set_scalars(Case& c, const KlSemantics& s) {
  c.scalars["teacher_softmax"] = s.teacher_softmax == KeySet::visible;
  c.scalars["teacher_keys"] = s.teacher_keys == KeySet::visible;
  c.scalars["student_keys"] = s.student_keys == KeySet::visible;
  c.scalars["student_scaled"] = s.student_scaled;
  c.scalars["l1_added"] = s.l1.added, c.scalars["l1_least"] = s.l1.least;
  c.scalars["log_p_added"] = s.log_p.added, c.scalars["log_p_least"] = s.log_p.least;
  c.scalars["log_q_added"] = s.log_q.added, c.scalars["log_q_least"] = s.log_q.least;
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const Index T = rows_of(plan.index.documents);
  Case c = start_case("indexer_kl_backward", "fp32",
                      {{'T', T},
                       {'H', plan.index.H},
                       {'D', plan.index.D},
                       {'K', plan.index.K},
                       {'N', plan.N},
                       {'C', plan.C}},
                      plan.index.inputs, tag_of(plan.index.documents) + "-" + plan.index.tag);
  Draw draw(c, seed);
  const TrainedIndex index(c, draw, plan.index);
  set_scalars(c, plan.semantics);
  const Keys chosen = keys_of_rows(c), visible = visible_keys_of_rows(c);
  const auto keys = [&](KeySet set) { return set == KeySet::chosen ? chosen : visible; };
  Problem in{
      .c = c,
      .semantics = plan.semantics,
      .softmax = keys(plan.semantics.teacher_softmax),
      .kept = keys(plan.semantics.teacher_softmax == KeySet::visible ? plan.semantics.teacher_keys
                                                                     : KeySet::chosen),
      .student = keys(plan.semantics.student_keys),
      .teacher = {},
      .scale = plan.semantics.student_scaled
                   ? 1
                   : 1 / (c.scalar("dot_scale") * c.scalar("weight_scale")),
      .scores = index.scores(),
      .scores_error = Tensor<double, 2>({T, T}),
      .weight = {}};
  in.teacher = draw_teacher(c, draw, plan, in.softmax);
  for (Index t = 0; t < T; ++t)
    for (const Index s : visible[static_cast<std::size_t>(t)])
      in.scores_error(t, s) = index.score(t, s).error;
  std::vector<double> weight;  // 0: a row that is not counted
  for (Index t = 0; t < T; ++t)
    weight.push_back(t % 7 == 3 ? 0 : 0.3 + 0.01 * static_cast<double>(t));
  c.in["weight"] = Array(Dtype::f32, {T}, weight);
  in.weight = widen<1>(c.in["weight"]);
  set_answers(in, index);
  return finished(std::move(c));
}

struct Reading {
  std::string name;
  KlSemantics semantics;
};

/// Every reading that has a name, in both phases, and what no name has: a teacher that is cut off,
/// one that is wider than its softmax, a student whose probabilities are clamped.
std::vector<Reading> readings() {
  std::vector<Reading> all;
  for (const char* name : {"paper", "maxtext", "megatron", "hf-fork", "prime-rl"}) {
    all.push_back({name, semantics_named(name)});
    all.push_back({std::string(name) + "-warmup", in_warmup(all.back().semantics)});
  }
  KlSemantics cut;
  cut.teacher_softmax = KeySet::visible;
  all.push_back({"cut-off", cut});
  cut.teacher_softmax = KeySet::chosen;
  cut.teacher_keys = cut.student_keys = KeySet::visible;
  all.push_back({"wider", cut});
  KlSemantics clamped;
  clamped.log_q = {0.001, 0.06};
  all.push_back({"clamped", clamped});
  all.push_back({"clamped-warmup", in_warmup(clamped)});
  return all;
}

Poses cases(std::uint64_t seed) {
  std::vector<Plan> plans;
  for (const auto& [name, semantics] : readings()) {
    plans.push_back({{{5, 1, 1, 9}, 3, 5, 4, Inputs::gaussian, name}, 2, 3, semantics});
    plans.push_back({{{26, 23}, 4, 33, 6, Inputs::gaussian, name}, 3, 6, semantics});
  }
  const KlSemantics paper, warmup = in_warmup(paper);
  const KlSemantics fork = semantics_named("hf-fork");
  plans.push_back({{{1}, 1, 1, 1, Inputs::gaussian, "one-row"}, 1, 1, paper});
  for (const Index K : {1, 7, 9})  // of 8 keys
    plans.push_back({{{8, 3}, 4, 8, K, Inputs::gaussian, "paper"}, 2, 5, paper});
  plans.push_back({{{9, 8}, 3, 5, 4, Inputs::gaussian, "uniform", true, true}, 2, 3, paper});
  plans.push_back({{{9, 8}, 3, 5, 4, Inputs::gaussian, "no-relu", false}, 2, 3, fork});
  const Inputs hard = Inputs::adversarial;
  plans.push_back({{{9, 8}, 3, 5, 4, hard, "holes", true, false, true}, 2, 3, paper});
  plans.push_back({{{9, 8}, 3, 5, 4, hard, "fork-holes", true, false, true}, 2, 3, fork});
  plans.push_back({{{100, 1, 49}, 9, 32, 40, Inputs::gaussian, "paper"}, 17, 24, paper});
  plans.push_back({{{100, 1, 49}, 9, 32, 40, Inputs::gaussian, "warmup"}, 17, 24, warmup});
  Poses poses;
  for (const Plan& plan : plans)
    poses.push_back(
        {"fp32",
         pairs_of(plan.index.documents, 0) * (8 * static_cast<double>(plan.index.H * plan.index.D) +
                                              2 * static_cast<double>(plan.N * plan.C)),
         [=] { return pose(plan, seed); }});
  return poses;
}

}  // namespace

KlSemantics kl_semantics(const Case& c) {
  const auto set = [&](const char* key) { return c.flag(key) ? KeySet::visible : KeySet::chosen; };
  KlSemantics s;
  s.teacher_softmax = set("teacher_softmax");
  s.teacher_keys = set("teacher_keys");
  s.student_keys = set("student_keys");
  s.student_scaled = c.flag("student_scaled");
  s.l1 = {c.scalar("l1_added"), c.scalar("l1_least")};
  s.log_p = {c.scalar("log_p_added"), c.scalar("log_p_least")};
  s.log_q = {c.scalar("log_q_added"), c.scalar("log_q_least")};
  return s;
}

Op indexer_kl_backward_op() {
  return {"indexer_kl_backward",
          "p = u / sum_s u, q = softmax_s scores: loss[t] = sum_s p ( log p - log q ), "
          "d_scores = weight ( q - p ), and from there as indexer_scores_backward",
          {"fp32"},
          cases,
          judge_elementwise};
}

}  // namespace dsa::verify::kernels
