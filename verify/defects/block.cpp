// Around the attention: embedding, residual stream, feed-forward networks, shared experts, head.
#include "verify/defects/alter.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {
namespace {

const std::string residual = "attention_residual";

void swap_gate_and_up(Variant& altered, Where where) {
  around(altered.ops.swiglu, std::move(where),
         [](const auto& inner, Name name, Out h, In gate, In up) { inner(name, h, up, gate); });
}

/// What a checkpoint scaled for fp16 needs once is done again in every further dense layer.
void residual_scaled_again(Variant& altered) {
  const Config c = altered.model.config;
  around(altered.ops.add, ends(residual), [c](const auto& inner, Name name, Out y, In x) {
    const Index layer = layer_of(name);
    if (0 < layer && layer < c.num_hidden_layers && !c.is_moe[static_cast<std::size_t>(layer)])
      for (double& value : y) value /= c.routed_scaling_factor;
    inner(name, y, x);
  });
}

void residual_from_norm(Variant& altered) {
  const Memory<Tensor<double, 2>> normalised;
  around(altered.ops.rmsnorm, ends("input_layernorm"),
         [normalised](const auto& inner, Name name, Out y, In x, const Parameter& g, double eps) {
           inner(name, y, x, g, eps);
           normalised.put(copy_of(y));
         });
  around(altered.ops.add, ends(residual), [normalised](const auto& inner, Name name, Out y, In x) {
    copy_into(y, normalised.get());
    inner(name, y, x);
  });
}

void residual_left_out(Variant& altered) {
  around(altered.ops.add, ends(residual), [](const auto& inner, Name name, Out y, In x) {
    std::fill(y.begin(), y.end(), 0.0);
    inner(name, y, x);
  });
}

void embedding_scaled(Variant& altered) {
  around(altered.ops.embed, anywhere(), [](const auto& inner, Name name, Out x, auto&&... rest) {
    inner(name, x, rest...);
    for (double& value : x) value *= std::sqrt(static_cast<double>(x.shape[1]));
  });
}

/// y += f x for y += x of the shared experts.
DefectVariant shared_times(std::string name, double (*factor)(const Config&)) {
  return {std::move(name), [factor](Variant& altered) {
            const double f = factor(altered.model.config);
            around(altered.ops.add, ends(".mlp"), [f](const auto& inner, Name at, Out y, In x) {
              Tensor<double, 2> scaled = copy_of(x);
              for (double& value : scaled) value *= f;
              inner(at, y, scaled);
            });
          }};
}

/// One expert's width where n_shared_experts are stored side by side.
void one_shared_expert(Variant& altered) {
  const Index F = altered.model.config.moe_intermediate_size;
  around(altered.ops.swiglu, contains("mlp.shared_experts"),
         [F](const auto& inner, Name name, Out h, In gate, In up) {
           inner(name, h, gate, up);
           for (Index t = 0; t < h.shape[0]; ++t) std::fill(h[t].begin() + F, h[t].end(), 0.0);
         });
}

bool several_dense_layers(const Config& c) {
  return c.is_moe.size() > 1 && !c.is_moe[1] && c.routed_scaling_factor != 1;
}
bool has_shared(const Config& c) { return has_router(c) && c.n_shared_experts > 0; }

std::vector<Defect> of_stream() {
  return {
      {74,
       "residual-scaled-again",
       "The residual stream is divided by routed_scaling_factor in every dense layer after the "
       "first.",
       issue("vllm-project/vllm", 14809),
       residual,
       several_dense_layers,
       {{"", residual_scaled_again}}},
      {303,
       "residual",
       "Plausible: the attention is added to its normalised input, or to nothing.",
       "",
       residual,
       any_model,
       {{"normalised input", residual_from_norm}, {"missing", residual_left_out}}},
      {304,
       "embedding-scaled",
       "Plausible: embeddings are multiplied by sqrt(C), as Gemma's are.",
       "",
       "model.embed_tokens",
       any_model,
       {{"", embedding_scaled}}},
      {306,
       "head-tied",
       "Plausible: the embedding serves as the head, though they are not tied.",
       "",
       "lm_head",
       [](const Config& c) { return !c.tie_word_embeddings; },
       {{"", [](Variant& a) { a.model.weights.lm_head.weight = a.model.weights.embed_tokens; }}}},
  };
}

std::vector<Defect> of_feed_forward() {
  return {
      {85,
       "swiglu-operands-swapped",
       "silu(up) gate stands for silu(gate) up.",
       issue("ml-explore/mlx-lm", 767),
       "mlp.down_proj",
       [](const Config& c) { return !c.is_moe.empty() && !c.is_moe.front(); },
       {{"", [](Variant& a) { swap_gate_and_up(a, anywhere()); }}}},
      {85,
       "swiglu-operands-swapped-but-in-experts",
       "silu(up) gate stands for silu(gate) up in dense and shared networks, not in the routed "
       "experts.",
       issue("ml-explore/mlx-lm", 767),
       "mlp.down_proj",
       [](const Config& c) { return has_router(c) && !c.is_moe.front(); },
       {{"",
         [](Variant& a) {
           swap_gate_and_up(
               a, [](Name name) { return name.find("mlp.experts.") == std::string::npos; });
         }}}},
      {85,
       "experts-gate-and-up-swapped",
       "Gate and up change places within the experts only.",
       issue("ml-explore/mlx-lm", 767),
       "down_proj",
       has_router,
       {{"", [](Variant& a) { swap_gate_and_up(a, contains("mlp.experts.")); }}}},
      {79,
       "shared-expert-scaled",
       "routed_scaling_factor multiplies, or divides, the shared expert too.",
       issue("sgl-project/sglang", 28237),
       "mlp",
       [](const Config& c) { return has_shared(c) && c.routed_scaling_factor != 1; },
       {shared_times("multiplied", [](const Config& c) { return c.routed_scaling_factor; }),
        shared_times("divided", [](const Config& c) { return 1 / c.routed_scaling_factor; })}},
      {79,
       "shared-expert-missing",
       "The shared expert's slot is overwritten: it adds nothing.",
       issue("sgl-project/sglang", 38963),
       "mlp",
       has_shared,
       {shared_times("", [](const Config&) { return 0.0; })}},
      {309,
       "shared-expert-width",
       "Plausible: the shared experts have the width of one, whatever n_shared_experts says.",
       "",
       "mlp.shared_experts.down_proj",
       [](const Config& c) { return has_router(c) && c.n_shared_experts > 1; },
       {{"", one_shared_expert}}},
  };
}

}  // namespace

std::vector<Defect> block_defects() {
  std::vector<Defect> all = of_stream();
  const std::vector<Defect> more = of_feed_forward();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace dsa::verify
