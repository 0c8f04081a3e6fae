// A dot: gamma(D). Whether relu passes it is certain unless it lies within its error of 0; then the
// whole of what it would give is allowed. Sums over keys, heads and queries in any order.
#include "verify/kernels/cases/indexer_training.hpp"

#include <limits>

#include "reference/ops/indexer_scores.hpp"

namespace dsa::verify::kernels {
namespace {

/// H^-1/2 or D^-1/2; in dyadic cases the power of two below: products stay exact.
double scale_of(Index n, Inputs inputs) {
  const double scale = 1 / std::sqrt(static_cast<double>(n));
  return inputs == Inputs::dyadic ? std::exp2(std::floor(std::log2(scale))) : scale;
}

std::vector<double> errors_of(const std::vector<Sum>& sums) {
  std::vector<double> errors;
  for (const Sum& sum : sums) errors.push_back(sum.error());
  return errors;
}

}  // namespace

TrainedIndex::TrainedIndex(Case& c, Draw& draw, const TrainedIndexPlan& plan)
    : uniform_(plan.uniform) {
  const auto& [documents, H, D, K, inputs, tag, relu, uniform, holes] = plan;
  const Index T = rows_of(documents);
  indexer_.activation = relu ? Indexer::Activation::relu : Indexer::Activation::none;
  indexer_.dot_scale = scale_of(D, inputs);
  indexer_.weight_scale = scale_of(H, inputs);
  c.scalars["dot_scale"] = indexer_.dot_scale;
  c.scalars["weight_scale"] = indexer_.weight_scale;
  c.scalars["relu"] = relu;
  c.in["q"] = draw.numbers(Dtype::f32, {T, H, D});
  c.in["k"] = draw.numbers(Dtype::f32, {T, D});
  if (!uniform) c.in["w"] = draw.numbers(Dtype::f32, {T, H});
  c.in["begin"] = begin_of(documents);
  if (K > 0) c.in["chosen"] = draw_chosen(draw, documents, K, holes);
  const auto begin = c.in["begin"].as<std::int32_t, 1>();
  documents_.assign(begin.begin(), begin.end());
  q_ = widen<3>(c.in["q"]), k_ = widen<2>(c.in["k"]);
  w_ = uniform ? Tensor<double, 2>({T, H}, 1.0) : widen<2>(c.in["w"]);
}

Rounded TrainedIndex::dot(Index t, Index h, Index s) const {
  Sum sum;
  for (Index i = 0; i < k_.shape()[1]; ++i) sum.add(q_(t, h, i), k_(s, i));
  return times(sum.total(), indexer_.dot_scale);
}

Rounded TrainedIndex::score(Index t, Index s) const {
  const bool relu = indexer_.activation == Indexer::Activation::relu;
  Sum sum;
  for (Index h = 0; h < w_.shape()[1]; ++h) {
    Rounded a = dot(t, h, s);
    if (relu && a.x < -a.error) continue;  // certain to be cut off
    if (relu) a.x = std::max(a.x, 0.0);
    sum.add(rounded(times(a, indexer_.weight_scale * w_(t, h)), 3));
  }
  return sum.total();
}

Tensor<double, 2> TrainedIndex::scores() const {
  const Index T = k_.shape()[0];
  Tensor<double, 2> scores({T, T});
  reference::indexer_scores<double>(scores, q_, k_, w_, indexer_, {0, documents_});
  return scores;
}

void TrainedIndex::set_gradient(Case& c, const Tensor<double, 2>& d_scores,
                                const Tensor<double, 2>& error) const {
  const Index T = q_.shape()[0], H = q_.shape()[1], D = q_.shape()[2];
  const bool relu = indexer_.activation == Indexer::Activation::relu;
  Tensor<double, 3> d_q(q_.shape());
  Tensor<double, 2> d_k(k_.shape()), d_w(w_.shape());
  reference::indexer_scores_backward<double>({d_q, d_k, d_w}, {q_, k_, w_}, d_scores, indexer_,
                                             {0, documents_});
  std::vector<Sum> q(static_cast<std::size_t>(T * H * D)), k(static_cast<std::size_t>(T * D)),
      w(static_cast<std::size_t>(T * H));
  for (Index t = 0; t < T; ++t)
    for (Index s = documents_[static_cast<std::size_t>(t)]; s <= t; ++s) {
      const Rounded of_score(d_scores(t, s), error(t, s));
      if (of_score.size() == 0) continue;
      for (Index h = 0; h < H; ++h) {
        const Rounded a = dot(t, h, s);
        const bool decided = !relu || std::abs(a.x) > a.error;
        if (relu && decided && a.x < 0) continue;
        Rounded d = of_score;
        if (!decided) d = {a.x > 0 ? d.x : 0, of_score.size()};
        w[static_cast<std::size_t>(t * H + h)].add(times(d, indexer_.weight_scale), rounded(a, 3));
        const Rounded d_a =
            rounded(times(d, indexer_.dot_scale * indexer_.weight_scale * w_(t, h)), 4);
        for (Index i = 0; i < D; ++i) {
          q[static_cast<std::size_t>((t * H + h) * D + i)].add(d_a, k_(s, i));
          k[static_cast<std::size_t>(s * D + i)].add(d_a, q_(t, h, i));
        }
      }
    }
  c.out["d_q"] = Array(Dtype::f32, {T, H, D});
  c.out["d_k"] = Array(Dtype::f32, {T, D});
  answer(c, "d_q", list(d_q), errors_of(q), true);
  answer(c, "d_k", list(d_k), errors_of(k), true);
  if (uniform_) return;
  c.out["d_w"] = Array(Dtype::f32, {T, H});
  answer(c, "d_w", list(d_w), errors_of(w), true);
}

}  // namespace dsa::verify::kernels
