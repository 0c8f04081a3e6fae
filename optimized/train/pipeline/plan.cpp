#include "optimized/train/pipeline/plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/checkpoint_writer.hpp"
#include "core/patterns.hpp"
#include "core/weights.hpp"
#include "optimized/train/pipeline/names.hpp"
#include "optimized/train/pipeline/start.hpp"

namespace dsa::train {
namespace {

double real(Index n) { return static_cast<double>(n); }

/// Keys that a query of a full row sees, on average.
double mean_visible(const Stage& stage) { return (real(stage.seq) + 1) / 2; }

/// Mean over the rows t = 0 ... S-1 of min(t + 1, K).
double mean_chosen(const Stage& stage, Index K) {
  const double S = real(stage.seq), k = std::min(real(K), S);
  return (k * (k + 1) / 2 + (S - k) * k) / S;
}

double index_factors(const Config& c) {
  if (!c.indexer) return 0;
  return real(index_layers(c)) * real(c.indexer->n_heads) * real(c.indexer->head_dim);
}

Index product_of(const std::vector<Index>& shape) {
  Index n = 1;
  for (const Index extent : shape) n *= extent;
  return n;
}

/// Calls f(name, shape) for every parameter.
template <class F>
void for_each_shape(const PlannedModel& model, F f) {
  Weights weights = empty_weights(model.config);
  weights.mtp.resize(static_cast<std::size_t>(model.mtp_blocks));
  for_each_tensor(weights, model.config,
                  [&](const std::string& name, const Parameter&, const std::vector<Index>& shape) {
                    f(name, shape);
                  });
}

std::string millions(double x) {
  return x < 1e6 ? fmt::format("{:.0f}", x) : fmt::format("{:.3g} M", x / 1e6);
}

}  // namespace

PlannedModel planned_model(const Settings& settings) {
  PlannedModel model;
  model.compute = compute_of(settings);
  if (!settings.text("model.init").empty() || settings.flag("model.init_indexer")) {
    const Start start = start_of(settings);
    model.config = start.model.config;
    model.mtp_blocks = static_cast<Index>(start.model.weights.mtp.size());
    return model;
  }
  model.config = parse_config(fresh_config(settings), "[model]");
  model.mtp_blocks = static_cast<Index>(empty_weights(model.config).mtp.size());
  return model;
}

std::vector<TrainedSize> trained_sizes(const PlannedModel& model, const Stage& stage) {
  std::vector<TrainedSize> all;
  for_each_shape(model, [&](const std::string& name, const std::vector<Index>& shape) {
    if (stage.kind != StageKind::lora) {
      if (stage.recipe.trains(name) && gets_gradient(name, stage, model.config))
        all.push_back({name, product_of(shape)});
    } else if (shape.size() >= 2 && any_matches(stage.lora.targets, name) &&
               gets_gradient(name, stage, model.config)) {
      all.push_back({name + ".lora_A", stage.lora.r * shape[1]});
      all.push_back({name + ".lora_B", stage.lora.r * shape[0]});
    }
  });
  return all;
}

Size size_of(const PlannedModel& model, const Stage& stage) {
  const Config& c = model.config;
  Size size;
  for (const TrainedSize& one : trained_sizes(model, stage)) size.trained += one.size;
  for_each_shape(model, [&](const std::string& name, const std::vector<Index>& shape) {
    const Index n = product_of(shape);
    size.parameters += n;
    if (shape.size() < 2 || (name.ends_with("embed_tokens.weight") && !c.tie_word_embeddings))
      return;
    const bool is_expert = name.find(".mlp.experts.") != name.npos;
    size.active += is_expert ? n * c.num_experts_per_tok / c.n_routed_experts : n;
  });
  return size;
}

double flops_a_token(const Config& c, const Size& size, const Stage& stage) {
  const bool is_sparse = stage.recipe.attention == Recipe::Attention::sparse && c.indexer;
  const double keys = is_sparse ? mean_chosen(stage, c.indexer->topk) : mean_visible(stage);
  const double heads = real(c.num_hidden_layers) * real(c.num_attention_heads);
  const double main =
      2 * real(size.active) + 2 * heads * real(c.qk_head_dim() + c.v_head_dim) * keys;
  const double index =
      is_sparse || stage.recipe.kl > 0 ? 2 * index_factors(c) * mean_visible(stage) : 0;
  const bool trains_main = stage.recipe.lm > 0 || stage.recipe.mtp > 0;
  const bool trains_index = stage.recipe.kl > 0;
  return main * (trains_main ? 4 : 1) + index * (trains_index ? 4 : 1);
}

Bytes bytes_of(const PlannedModel& model, const Size& size, const Stage& stage) {
  const Config& c = model.config;
  constexpr double fp32 = 4;
  const double T = real(stage.batch / stage.recipe.accumulation * stage.seq);
  const double K = c.indexer ? std::min(real(c.indexer->topk), real(stage.seq)) : 0;
  const double wide =
      4 * real(c.hidden_size) +
      3 * real(c.num_attention_heads) * real(c.qk_head_dim() + c.v_head_dim) +
      3 * real(std::max(c.intermediate_size, c.num_experts_per_tok * c.moe_intermediate_size)) +
      2 * K;
  const double of_layout = model.compute == Compute::fp32 ? fp32 : 2;
  return {fp32 * real(size.parameters),
          2 * of_layout * real(size.parameters),
          fp32 * real(size.parameters),
          2 * fp32 * real(size.trained),
          fp32 * T * (2 * wide + real(c.num_hidden_layers) * real(c.hidden_size)),
          fp32 * T * 4 * real(c.num_attention_heads) * real(c.qk_head_dim() + c.v_head_dim)};
}

std::string plan_text(const PlannedModel& model, const std::vector<Stage>& stages) {
  const Config& c = model.config;
  std::string all;
  double flops = 0;
  Index steps = 0, tokens = 0;
  const auto bytes = [](double n) { return bytes_text(static_cast<Index>(n)); };
  for (const Stage& stage : stages) {
    const Size size = size_of(model, stage);
    if (all.empty())
      all = fmt::format("model: {}, {} parameters, {} in the products of a token\n", c.model_type,
                        millions(real(size.parameters)), millions(real(size.active)));
    const Index a_step = stage.batch * stage.seq;
    const double each = flops_a_token(c, size, stage);
    const Bytes b = bytes_of(model, size, stage);
    all += fmt::format("\n{}: {} steps of {} tokens, {} parameters trained, {} attention\n",
                       stage.name, stage.steps, a_step, millions(real(size.trained)),
                       stage.recipe.attention == Recipe::Attention::dense ? "dense" : "sparse");
    all += fmt::format("  {:.3g} MFLOP a token, {:.3g} GFLOP a step\n", each / 1e6,
                       each * real(a_step) / 1e9);
    all += fmt::format(
        "  memory: parameters {}, laid out for products {}, gradients {}, moments {}, activations "
        "about {}\n",
        bytes(b.parameters), bytes(b.layouts), bytes(b.gradients), bytes(b.moments),
        bytes(b.activations));
    steps += stage.steps;
    tokens += stage.steps * a_step;
    flops += each * real(stage.steps * a_step);
  }
  return all + fmt::format("\ntogether: {} steps, {} tokens, {:.3g} TFLOP\n", steps,
                           millions(real(tokens)), flops / 1e12);
}

}  // namespace dsa::train
