// What happens to all gradients alike: the residual stream, layers, and the counts that losses are
// divided by.
#include <algorithm>
#include <cmath>

#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

/// d_x before the norm's own share is added: what the residual stream carries on.
GradientChange stream_times(std::string name, Where norm, double factor) {
  return {std::move(name), [=](GradientVariant& v) {
            around(v.backward.rmsnorm, norm,
                   [=](const auto& inner, Name at, Out d_x, View<double, 1> d_g, auto&&... rest) {
                     for (double& x : d_x) x *= factor;
                     inner(at, d_x, d_g, rest...);
                   });
          }};
}

GradientChange no_branch(std::string name, Where add) {
  return {std::move(name), [=](GradientVariant& v) { leave_out(v.backward.add, add); }};
}

/// "model.layers.3": the sum behind a block's feed-forward network.
bool is_block(Name name) {
  return name.starts_with("model.layers.") && name.rfind('.') == std::string("model.layers").size();
}

/// What a block passes on to the ones before it is lost.
std::vector<GradientChange> ends_at_layers(const GradientVariant& right) {
  std::vector<GradientChange> all;
  for (Index l = 1; l < right.model.config.num_hidden_layers; ++l)
    all.push_back({"below layer " + std::to_string(l), [l](GradientVariant& v) {
                     around(
                         v.backward.rmsnorm,
                         [name = in_layer(l, "input_layernorm")](Name at) { return at == name; },
                         [](const auto& inner, Name at, Out d_x, auto&&... rest) {
                           inner(at, d_x, rest...);
                           for (double& x : d_x) x = 0;
                         });
                   }});
  return all;
}

GradientDefects residuals() {
  const Where attention = ends("input_layernorm"), network = ends("post_attention_layernorm"),
              either = [=](Name name) { return attention(name) || network(name); };
  GradientDefect ends_early{
      481,
      "gradient-ends-at-layer",
      "Plausible: the gradient ends at a layer, and those before it learn nothing.",
      "",
      "model.layers",
      of_trunk,
      {}};
  ends_early.more = ends_at_layers;
  return {{480,
           "residual-gradient",
           "Plausible: the residual stream's own gradient is dropped, or counts twice, and "
           "branches carry the "
           "rest.",
           "",
           "model.layers",
           of_trunk,
           {stream_times("dropped past attention", attention, 0),
            stream_times("dropped past the feed-forward networks", network, 0),
            stream_times("dropped past both", either, 0),
            stream_times("twice past attention", attention, 2),
            stream_times("twice past the feed-forward networks", network, 2)}},
          {482,
           "branch-detached",
           "Plausible: a branch of the residual stream receives no gradient.",
           "",
           "model.layers",
           of_trunk,
           {no_branch("attention", ends("attention_residual")),
            no_branch("feed-forward networks", is_block)}},
          ends_early};
}

/// The counts of a batch, by which sums and means differ.
struct Counts {
  double rows = 0, all_rows = 0, targets = 0, sequences = 0, layers = 1, all_layers = 0, heads = 0;
  double own = 0;  // rows that the loss at hand counts

  explicit Counts(const GradientVariant& v) {
    const auto number = [](Index n) { return static_cast<double>(n); };
    for (const Sequence& one : v.sequences) {
      all_rows += number(one.size());
      rows += number(one.size() - std::count(one.documents.begin(), one.documents.end(), -1));
    }
    for (const Token target : reference::targets_of(v.sequence, v.is("mtp") ? 2 : 1))
      targets += target >= 0;
    sequences = number(static_cast<Index>(v.sequences.size()));
    if (v.is("kl"))
      layers = number(std::count(v.model.config.indexer->computes.begin(),
                                 v.model.config.indexer->computes.end(), true));
    all_layers = number(v.model.config.num_hidden_layers);
    heads = number(v.model.config.num_attention_heads);
    own = v.is("kl") ? rows : targets;
  }
};

struct Factor {
  const char* words;
  double value;
};
std::vector<Factor> factors_of(const GradientVariant& v) {
  const Counts n(v);
  std::vector<Factor> all = {
      {"summed over tokens, not averaged", n.own},
      {"summed over the sequences of the batch", n.sequences},
      {"divided by the sequences of the batch once more", 1 / n.sequences},
      {"divided by all rows, those that do not count too", n.own / n.all_rows},
      {"divided by the tokens of one sequence", n.own / (n.all_rows / n.sequences)},
      {"divided by the tokens once more", 1 / n.own},
      {"counted twice", 2},
      {"halved", 0.5},
      {"of the other sign", -1},
      {"in bits, not in nats", 1 / std::log(2.0)},
      {"times the coefficient 0.1", 0.1},
      {"times the coefficient 0.01", 0.01},
      {"times the coefficient 0.3", 0.3}};
  if (n.rows != n.all_rows) all.push_back({"divided by padding rows, too", n.rows / n.all_rows});
  if (v.is("kl")) {
    all.push_back({"summed over layers, not averaged", n.layers});
    all.push_back({"divided by the layers once more", 1 / n.layers});
    all.push_back({"averaged over layers without an indexer, too", n.layers / n.all_layers});
    all.push_back({"summed over tokens and layers", n.own * n.layers});
    all.push_back({"summed over heads", n.heads});
  }
  std::erase_if(all, [](const Factor& f) { return std::abs(f.value - 1) < 1e-12; });
  return all;
}

std::vector<GradientChange> common_factors(const GradientVariant& right) {
  std::vector<GradientChange> all;
  for (const Factor& factor : factors_of(right))
    all.push_back({factor.words, [value = factor.value](GradientVariant& v) {
                     v.loss_factor = v.gradient_factor = value;
                   }});
  return all;
}
std::vector<GradientChange> gradient_factors(const GradientVariant& right) {
  std::vector<GradientChange> all;
  for (const Factor& factor : factors_of(right))
    all.push_back(
        {factor.words, [value = factor.value](GradientVariant& v) { v.gradient_factor = value; }});
  return all;
}
std::vector<GradientChange> loss_factors(const GradientVariant& right) {
  std::vector<GradientChange> all;
  for (const Factor& factor : factors_of(right))
    all.push_back(
        {factor.words, [value = factor.value](GradientVariant& v) { v.loss_factor = value; }});
  return all;
}

GradientDefect factor_defect(GradientDefect defect,
                             std::vector<GradientChange> (*more)(const GradientVariant&)) {
  defect.only_factor = true;
  defect.more = more;
  return defect;
}

GradientDefects normalisation() {
  return {factor_defect({45,
                         "loss-normalisation",
                         "Loss and gradients are divided by the wrong count.",
                         issue("NVIDIA/Megatron-LM", 4070),
                         "loss",
                         any_loss,
                         {},
                         true},
                        common_factors),
          factor_defect({45,
                         "gradient-normalisation",
                         "The loss is right, and its gradients are divided by the wrong count.",
                         issue("AI-Hypercomputer/maxtext", 3311),
                         "loss",
                         any_loss,
                         {}},
                        gradient_factors),
          factor_defect(
              {483,
               "loss-reported-otherwise",
               "Plausible: the gradients are right, and the loss that is reported is of another "
               "count.",
               "",
               "loss",
               any_loss,
               {},
               true},
              loss_factors)};
}

GradientDefects nothing() {
  GradientDefect skipped{57,
                         "loss-skipped",
                         "The loss is left out by default flags: value and gradients are zero.",
                         repository("AI-Hypercomputer/maxtext") + "/commit/448978d9b",
                         "loss",
                         any_loss,
                         {{"", [](GradientVariant& v) { v.loss_factor = v.gradient_factor = 0; }}},
                         true};
  GradientDefect silent{47,
                        "no-gradient",
                        "The loss is computed, and nothing receives its gradient.",
                        issue("huggingface/transformers", 48826),
                        "loss",
                        any_loss,
                        {{"", [](GradientVariant& v) { v.gradient_factor = 0; }}}};
  skipped.only_factor = silent.only_factor = true;
  return {skipped, silent};
}

}  // namespace

GradientDefects flow_defects() {
  GradientDefects all;
  for (const GradientDefects& part : {residuals(), normalisation(), nothing()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
