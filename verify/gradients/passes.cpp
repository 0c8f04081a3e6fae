#include "verify/gradients/passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "core/random.hpp"
#include "core/trace_names.hpp"
#include "reference/precision/rounder_backward.hpp"
#include "verify/measure/selection.hpp"

namespace dsa::verify {
namespace {

/// Every other draw takes any of equal scores, by an order of its own; the others take the last
/// ones, which are farthest from the definition's.
void break_ties(reference::Ops<double>& ops, std::uint64_t draw) {
  ops.topk_select = [draw, inner = ops.topk_select](const std::string& name, View<Index, 2> chosen,
                                                    View<const double, 2> scores) {
    const auto [T, S] = scores.shape;
    std::vector<Index> column(static_cast<std::size_t>(S));
    std::iota(column.rbegin(), column.rend(), Index{0});
    const std::uint64_t seed = random_bits(draw, static_cast<std::uint64_t>(layer_of(name)));
    const auto place = [&](Index s) { return random_bits(seed, static_cast<std::uint64_t>(s)); };
    if (draw % 2 == 0)
      std::sort(column.begin(), column.end(),
                [&](Index a, Index b) { return place(a) < place(b); });
    Tensor<double, 2> reordered(scores.shape);
    for (Index t = 0; t < T; ++t)
      for (Index s = 0; s < S; ++s)
        reordered(t, s) = scores(t, column[static_cast<std::size_t>(s)]);
    inner(name, chosen, reordered);
    for (Index& s : chosen)
      if (s >= 0) s = column[static_cast<std::size_t>(s)];
  };
}

/// torch sees one sequence of a batch in a row of scores, keys that are masked among them. Where a
/// variant joins the batch in another way, the order is the definition's.
void order_ties_as_torch(reference::Ops<double>& ops, const std::vector<Sequence>& batch) {
  std::vector<Index> ends;
  for (const Sequence& one : batch) ends.push_back((ends.empty() ? 0 : ends.back()) + one.size());
  ops.topk_select = [ends, inner = ops.topk_select](const std::string& name, View<Index, 2> chosen,
                                                    View<const double, 2> scores) {
    inner(name, chosen, scores);
    if (!is_selection(name) || scores.shape != std::array<Index, 2>{ends.back(), ends.back()})
      return;
    for (Index t = 0; t < scores.shape[0]; ++t) {
      const auto end = std::upper_bound(ends.begin(), ends.end(), t);
      const Index begin = end == ends.begin() ? 0 : *(end - 1);
      const View<const double, 1> row{&scores(t, begin), {*end - begin}};
      std::vector<Index> keys = as_torch_orders(row, std::min(chosen.shape[1], row.size()));
      std::erase_if(keys, [&](Index s) { return std::isinf(row(s)); });
      std::fill(chosen[t].begin(), chosen[t].end(), -1);
      std::transform(keys.begin(), keys.end(), chosen[t].begin(),
                     [&](Index s) { return begin + s; });
    }
  };
}

double distance_of_loss(const std::string& name, double value, const GradientStage& stage) {
  const double ours = loss_of(variant_of(name, stage));
  return std::abs(value - ours) / std::abs(ours);
}

/// The largest relative distance of a file's losses from the stage's.
double distance_of_losses(const GradientFile& file, const GradientStage& stage) {
  double distance = 0;
  for (const auto& [name, value] : file.losses)
    distance = std::max(distance, distance_of_loss(name, value, stage));
  return distance;
}

/// No other stage, or order of ties, gives losses so near.
constexpr double as_good_as_equal = 1e-6;

/// That under which most losses agree: one that is wrong agrees under none.
TieOrder tie_order_of(GradientStage stage, const GradientFile& file) {
  if (!stage.is_sparse || !stage.model.config.indexer) return TieOrder::lowest;
  std::size_t most = 0;
  TieOrder found = TieOrder::any;
  for (const TieOrder ties : {TieOrder::lowest, TieOrder::torch}) {
    stage.ties = ties;
    const auto agree = static_cast<std::size_t>(
        std::count_if(file.losses.begin(), file.losses.end(), [&](const auto& loss) {
          return distance_of_loss(loss.first, loss.second, stage) < as_good_as_equal;
        }));
    if (agree > most) most = agree, found = ties;
    if (most == file.losses.size()) break;
  }
  return found;
}

}  // namespace

GradientVariant variant_of(const std::string& loss, const GradientStage& stage,
                           const GradientRoundings& r) {
  using reference::Rounding;
  const Rounding rounding{r.draw ? Rounding::Mode::random : Rounding::Mode::nearest,
                          r.draw.value_or(0)};
  GradientVariant v;
  v.model = r.draw ? reference::loaded_as(stage.model, r.precision) : stage.model;
  v.ops = r.draw ? reference::ops_of(r.precision, rounding, v.model.config)
                 : reference::definition<double>();
  if (stage.ties == TieOrder::torch) order_ties_as_torch(v.ops, stage.sequences);
  if (stage.ties == TieOrder::any && r.draw) break_ties(v.ops, *r.draw);
  v.backward = r.draw ? reference::backward_ops_of(r.precision, rounding)
                      : reference::backward_definition<double>();
  v.loss = loss;
  v.sequences = stage.sequences;
  v.topk = stage.topk;
  read_as(v, stage.semantics);
  return v;
}

GradientPass run_backward(const GradientVariant& v) {
  GradientPass pass;
  const reference::Pass<double> forward{v.model, v.ops};
  const auto give = [&](const std::string& name, View<const double, 2> gradient) {
    Tensor<double, 2> mine(gradient.shape);
    for (Index i = 0; i < mine.size(); ++i) mine.data()[i] = v.gradient_factor * gradient.data[i];
    if (v.handed_out) v.handed_out(name, mine);
    pass.gradients.emplace_back(name, Values(mine.begin(), mine.end()));
  };
  pass.loss =
      v.loss_factor *
      reference::backward<double>({forward, v.backward, v.sequence, v.objective, give}).total();
  return pass;
}

double loss_of(const GradientVariant& v) {
  return v.loss_factor *
         reference::losses<double>({v.model, v.ops}, v.sequence, v.objective).total();
}

GradientStage stage_of(const Model& model, const GradientFile& file, const KlSemantics& semantics,
                       const GradientFile& judged) {
  const Index topk = model.config.indexer ? model.config.indexer->topk : 0;
  std::vector<GradientStage> stages = {{"sparse", model, file.sequences, semantics, topk, true}};
  if (model.config.indexer) {
    Model dense = model;
    dense.config.indexer->topk = reference::join(file.sequences).size();
    stages.push_back(
        {"dense: every visible key is chosen", dense, file.sequences, semantics, topk, false});
    stages.push_back({"warm-up: a KL over all visible keys under a sparse forward pass", model,
                      file.sequences, in_warmup(semantics), topk, true});
  }
  std::size_t best = 0;
  double nearest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const double distance = distance_of_losses(file, stages[i]);
    if (distance < nearest) nearest = distance, best = i;
    if (nearest < as_good_as_equal) break;
  }
  // Nearer than bf16 takes a loss; otherwise the loss is wrong or another reduction's, at any
  // stage.
  constexpr double near = 1e-2;
  GradientStage stage = std::move(stages[nearest < near ? best : 0]);
  stage.ties = tie_order_of(stage, judged);
  return stage;
}

bool sees_selection(const GradientStage& stage) {
  if (!stage.model.config.indexer || !stage.is_sparse) return true;
  const Sequence sequence = variant_of("lm", stage).sequence;
  const reference::Visibility visible{0, sequence.documents};
  for (Index t = 0; t < visible.keys(); ++t) {
    Index keys = 0;
    for (Index s = 0; s <= t; ++s) keys += visible.sees(t, s);
    if (keys > stage.model.config.indexer->topk) return true;
  }
  return false;
}

GradientDraws draw_gradients(const std::string& loss, const GradientStage& stage,
                             const GradientPass& base, reference::Precision precision,
                             const Draws& options,
                             const std::function<void(GradientVariant&)>& alter) {
  GradientDraws draws;
  draws.whole.resize(base.gradients.size());
  draws.element.resize(base.gradients.size());
  for (int run = 0; run < options.runs; ++run) {
    GradientVariant v =
        variant_of(loss, stage, {precision, options.seed + static_cast<std::uint64_t>(run)});
    if (alter) alter(v);
    const GradientPass other = run_backward(v);
    std::map<std::string, const Values*>
        by_name;  // an expert without tokens comes at another place
    for (const auto& [name, values] : other.gradients) by_name[name] = &values;
    for (std::size_t p = 0; p < base.gradients.size(); ++p) {
      const auto& [name, want] = base.gradients[p];
      if (norm(want) == 0) continue;
      const GradientDistance d = distance(*by_name.at(name), want);
      draws.whole[p].push_back(d.whole);
      draws.element[p].push_back(d.element);
    }
    draws.loss.push_back(other.loss - base.loss);
  }
  return draws;
}

}  // namespace dsa::verify
