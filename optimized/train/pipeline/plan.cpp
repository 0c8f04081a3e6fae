#include "optimized/train/pipeline/plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/checkpoint_writer.hpp"
#include "core/patterns.hpp"
#include "core/weights.hpp"
#include "optimized/train/pipeline/names.hpp"

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

std::string millions(double x) {
  return x < 1e6 ? fmt::format("{:.0f}", x) : fmt::format("{:.3g} M", x / 1e6);
}

}  // namespace

Size size_of(const Config& config, Index mtp_blocks, const Stage& stage) {
  Weights weights = empty_weights(config);
  weights.mtp.resize(static_cast<std::size_t>(mtp_blocks));
  Size size;
  for_each_tensor(weights, config,
                  [&](const std::string& name, const Parameter&, const std::vector<Index>& shape) {
                    Index n = 1;
                    for (const Index extent : shape) n *= extent;
                    size.parameters += n;
                    if (stage.kind == StageKind::lora) {
                      if (shape.size() >= 2 && any_matches(stage.lora.targets, name))
                        size.trained += stage.lora.r * (shape[0] + shape[1]);
                    } else if (stage.recipe.trains(name) && gets_gradient(name, stage, config)) {
                      size.trained += n;
                    }
                    if (shape.size() < 2 ||
                        (name.ends_with("embed_tokens.weight") && !config.tie_word_embeddings))
                      return;
                    const bool is_expert = name.find(".mlp.experts.") != name.npos;
                    size.active +=
                        is_expert ? n * config.num_experts_per_tok / config.n_routed_experts : n;
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

Bytes bytes_of(const Config& c, const Size& size, const Stage& stage) {
  constexpr double fp32 = 4;
  const double T = real(stage.batch / stage.recipe.accumulation * stage.seq);
  const double K = c.indexer ? std::min(real(c.indexer->topk), real(stage.seq)) : 0;
  const double wide =
      4 * real(c.hidden_size) +
      3 * real(c.num_attention_heads) * real(c.qk_head_dim() + c.v_head_dim) +
      3 * real(std::max(c.intermediate_size, c.num_experts_per_tok * c.moe_intermediate_size)) +
      2 * K;
  return {fp32 * real(size.parameters), fp32 * real(size.parameters), 2 * fp32 * real(size.trained),
          fp32 * T * (2 * wide + real(c.num_hidden_layers) * real(c.hidden_size))};
}

std::string plan_text(const Config& c, Index mtp_blocks, const std::vector<Stage>& stages) {
  std::string all;
  double flops = 0;
  Index steps = 0, tokens = 0;
  const auto bytes = [](double n) { return bytes_text(static_cast<Index>(n)); };
  for (const Stage& stage : stages) {
    const Size size = size_of(c, mtp_blocks, stage);
    if (all.empty())
      all = fmt::format("model: {}, {} parameters, {} in the products of a token\n", c.model_type,
                        millions(real(size.parameters)), millions(real(size.active)));
    const Index a_step = stage.batch * stage.seq;
    const double each = flops_a_token(c, size, stage);
    const Bytes b = bytes_of(c, size, stage);
    all += fmt::format("\n{}: {} steps of {} tokens, {} parameters trained, {} attention\n",
                       stage.name, stage.steps, a_step, millions(real(size.trained)),
                       stage.recipe.attention == Recipe::Attention::dense ? "dense" : "sparse");
    all += fmt::format("  {:.3g} MFLOP a token, {:.3g} GFLOP a step\n", each / 1e6,
                       each * real(a_step) / 1e9);
    all += fmt::format("  memory: parameters {}, gradients {}, moments {}, activations about {}\n",
                       bytes(b.parameters), bytes(b.gradients), bytes(b.moments),
                       bytes(b.activations));
    steps += stage.steps;
    tokens += stage.steps * a_step;
    flops += each * real(stage.steps * a_step);
  }
  return all + fmt::format("\ntogether: {} steps, {} tokens, {:.3g} TFLOP\n", steps,
                           millions(real(tokens)), flops / 1e12);
}

}  // namespace dsa::train
