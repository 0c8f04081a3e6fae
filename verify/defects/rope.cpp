// Rotary embedding of MLA, and the frequencies that MLA and the indexer share.
#include "reference/rope.hpp"

#include "verify/defects/alter.hpp"

namespace dsa::verify {
namespace {

const std::string query = "self_attn.q_rope", key = "self_attn.k_rope";

/// Another table of cos and sin, from other parameters but with the right attention factor.
Variant frequencies(std::string name, std::function<void(Rope&)> change) {
  return {std::move(name), [change = std::move(change)](Altered& altered) {
            around(altered.ops.rope_table, anywhere(),
                   [change](const auto& inner, Name at, Out cos, Out sin,
                            std::span<const Index> positions, const Rope& rope) {
                     Rope told = rope;
                     told.attention_factor = reference::rope_attention_factor(rope);
                     change(told);
                     inner(at, cos, sin, positions, told);
                   });
          }};
}

std::vector<Variant> wrong_yarn() {
  return {
      frequencies("off", [](Rope& r) { r.factor = 1; }),
      frequencies("betas swapped", [](Rope& r) { std::swap(r.beta_fast, r.beta_slow); }),
      frequencies("not truncated", [](Rope& r) { r.truncate = !r.truncate; }),
      frequencies("factor/2", [](Rope& r) { r.factor /= 2; }),
      frequencies("factor*2", [](Rope& r) { r.factor *= 2; }),
      frequencies("default betas", [](Rope& r) { r.beta_fast = 32, r.beta_slow = 1; }),
      frequencies("original length*4", [](Rope& r) { r.original_max_position_embeddings *= 4; }),
  };
}

void amplify(Altered& altered) {
  const double m = mscale(altered.model.config, altered.model.config.rope.mscale_all_dim);
  around(altered.ops.rope_table, anywhere(),
         [m](const auto& inner, Name name, Out cos, Out sin, auto&&... rest) {
           inner(name, cos, sin, rest...);
           for (double& value : cos) value *= m;
           for (double& value : sin) value *= m;
         });
}

void amplify_instead(Altered& altered) {
  amplify(altered);
  const double scale = 1 / std::sqrt(static_cast<double>(altered.model.config.qk_head_dim()));
  around_attention(altered, [scale](Name, AttentionTold& told) { told.scale = scale; });
}

/// A run that is taken for short: neither frequencies nor scales of YaRN.
void gated_off(Config& c) { c.rope.yarn = false; }

Variant no_rope(std::string name, Where where) {
  return {std::move(name), [where](Altered& altered) { leave_out(altered.ops.rope, where); }};
}

bool has_yarn(const Config& c) { return c.rope.yarn && c.rope.factor > 1; }

std::vector<Variant> wrong_theta() {
  std::vector<Variant> variants;
  for (const double theta : {1e4, 1e5, 1e6})
    variants.push_back(
        frequencies(constant("theta", theta), [theta](Rope& r) { r.theta = theta; }));
  return variants;
}

}  // namespace

std::vector<Defect> rope_defects() {
  const auto any_rotary = [](Name name) { return name.ends_with(query) || name.ends_with(key); };
  return {
      {63,
       "rope-amplified",
       "YaRN's factor m multiplies cos and sin, besides the softmax scale or in its place.",
       issue("turboderp-org/exllamav3", 259),
       query,
       has_softmax_mscale,
       {{"besides the scale", amplify}, {"in place of the scale", amplify_instead}}},
      {64,
       "yarn-gated-off",
       "YaRN depends on the length of the run: neither its frequencies nor its scale are applied.",
       issue("AI-Hypercomputer/maxtext", 1370),
       query,
       has_yarn,
       {config_variant("", gated_off)}},
      {65, "yarn-frequencies", "The frequencies are not YaRN's, or its ramp is wrong.",
       issue("pytorch/torchtitan", 3787), query, has_yarn, wrong_yarn()},
      {66,
       "rope-other-convention",
       "MLA rotates channels (i, i + P/2) where the config says (2i, 2i+1), or the reverse.",
       issue("huggingface/transformers", 39687),
       query,
       any_model,
       {config_variant("",
                       [](Config& c) {
                         c.rope_layout = c.rope_layout == RopeLayout::half ? RopeLayout::interleaved
                                                                           : RopeLayout::half;
                       })}},
      {67,
       "rope-missing",
       "MLA's query, or query and key, are not rotated.",
       issue("sqliteai/warp", 27),
       query,
       any_model,
       {no_rope("query and key", any_rotary), no_rope("query", ends(query))}},
      {67,
       "key-rope-missing",
       "MLA's key is not rotated, or is cached before its rotation.",
       issue("sqliteai/warp", 27),
       key,
       any_model,
       {no_rope("", ends(key))}},
      {310, "rope-theta", "Plausible: rope_theta is a default's, not the config's.", "", query,
       any_model, wrong_theta()},
  };
}

}  // namespace dsa::verify
