#include "verify/gradients/passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "reference/precision/rounder_backward.hpp"

namespace dsa::verify {

GradientVariant variant_of(const std::string& loss, const GradientStage& stage,
                           const GradientRoundings& r) {
  using reference::Rounding;
  const Rounding rounding{r.draw ? Rounding::Mode::random : Rounding::Mode::nearest,
                          r.draw.value_or(0)};
  GradientVariant v;
  v.model = r.draw ? reference::loaded_as(stage.model, r.precision) : stage.model;
  v.ops = r.draw ? reference::ops_of(r.precision, rounding, v.model.config)
                 : reference::definition<double>();
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

GradientStage stage_of(const Model& model, const GradientFile& file, const KlSemantics& semantics) {
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
    double distance = 0;
    for (const auto& [name, value] : file.losses) {
      const double ours = loss_of(variant_of(name, stages[i]));
      distance = std::max(distance, std::abs(value - ours) / std::abs(ours));
    }
    if (distance < nearest) nearest = distance, best = i;
    if (nearest < 1e-6) break;  // no other stage is so near
  }
  // Nearer than bf16 takes a loss; otherwise the loss is wrong or another reduction's, at any
  // stage.
  constexpr double near = 1e-2;
  return stages[nearest < near ? best : 0];
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
