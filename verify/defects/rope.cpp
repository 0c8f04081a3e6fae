// Rotary embedding of MLA, and the frequencies that MLA and the indexer share.
#include "reference/ops/rope.hpp"

#include "verify/defects/alter.hpp"

namespace dsa::verify {
namespace {

const std::string query = "self_attn.q_rope", key = "self_attn.k_rope";

/// Another table of cos and sin, from other parameters but with the right attention factor.
DefectVariant frequencies(std::string name, std::function<void(Rope&)> change) {
  return {std::move(name), [change = std::move(change)](Variant& altered) {
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

std::vector<DefectVariant> wrong_yarn() {
  return {
      frequencies("off", [](Rope& r) { r.factor = 1; }),
      frequencies("betas swapped", [](Rope& r) { std::swap(r.beta_fast, r.beta_slow); }),
      frequencies("not truncated", [](Rope& r) { r.truncate = !r.truncate; }),
      frequencies("factor/2", [](Rope& r) { r.factor /= 2; }),
      frequencies("factor*2", [](Rope& r) { r.factor *= 2; }),
      frequencies("original length*4", [](Rope& r) { r.original_max_position_embeddings *= 4; }),
  };
}

void amplify_by(Variant& altered, double m) {
  around(altered.ops.rope_table, anywhere(),
         [m](const auto& inner, Name name, Out cos, Out sin, auto&&... rest) {
           inner(name, cos, sin, rest...);
           for (double& value : cos) value *= m;
           for (double& value : sin) value *= m;
         });
}

double factor_of_scale(const Variant& altered) {
  return mscale(altered.model.config, altered.model.config.rope.mscale_all_dim);
}

void amplify(Variant& altered) { amplify_by(altered, factor_of_scale(altered)); }

/// The indexer's rotation stays right.
void amplify_mla(Variant& altered) {
  around(
      altered.ops.rope, [](Name name) { return name.ends_with(query) || name.ends_with(key); },
      [m = factor_of_scale(altered)](const auto& inner, Name name, Out3 x, auto&&... rest) {
        inner(name, x, rest...);
        for (double& value : x) value *= m;
      });
}

void amplify_instead(Variant& altered) {
  amplify(altered);
  const double scale = 1 / std::sqrt(static_cast<double>(altered.model.config.qk_head_dim()));
  around_attention(altered, [scale](Name, AttentionTold& told) { told.scale = scale; });
}

/// A run that is taken for short: neither frequencies nor scales of YaRN.
void gated_off(Config& c) { c.rope.yarn = false; }

DefectVariant no_rope(std::string name, Where where) {
  return {std::move(name), [where](Variant& altered) { leave_out(altered.ops.rope, where); }};
}

/// Key s holds k_rope of key s + by; the first or last one its own.
DefectVariant shifted_key(std::string name, Index by) {
  return {std::move(name), [by](Variant& altered) {
            around(altered.ops.cache, ends(key), [by](const auto& inner, Name at, Out k) {
              const Tensor<double, 2> right = copy_of(k);
              const Index S = k.shape[0];
              for (Index s = 0; s < S; ++s)
                copy_into(k[s], right.view()[std::clamp<Index>(s + by, 0, S - 1)]);
              inner(at, k);
            });
          }};
}

bool has_own_betas(const Config& c) {
  return c.rope.yarn && c.rope.factor > 1 && (c.rope.beta_fast != 32 || c.rope.beta_slow != 1);
}

/// A cache in a narrow format, whose largest number is `bound`.
void clip_key(Variant& altered, double bound) {
  around(altered.ops.cache, ends(key), [bound](const auto& inner, Name at, Out k) {
    for (double& value : k) value = std::clamp(value, -bound, bound);
    inner(at, k);
  });
}

/// One scale for the whole cache, taken from the latent: what is larger saturates.
void clip_key_at_latent(Variant& altered) {
  const Memory<double> largest;
  around(altered.ops.cache, ends("self_attn.kv_a_layernorm"),
         [largest](const auto& inner, Name at, Out c) {
           double most = 0;
           for (const double value : c) most = std::max(most, std::abs(value));
           largest.put(most);
           inner(at, c);
         });
  around(altered.ops.cache, ends(key), [largest](const auto& inner, Name at, Out k) {
    const double bound = largest.get();
    for (double& value : k) value = std::clamp(value, -bound, bound);
    inner(at, k);
  });
}

void restart_positions(Variant& altered, double chunk) {
  around(altered.ops.rope_table, anywhere(),
         [size = static_cast<Index>(chunk)](const auto& inner, Name at, Out cos, Out sin,
                                            std::span<const Index> positions, const Rope& rope) {
           std::vector<Index> within(positions.begin(), positions.end());
           for (Index& position : within) position %= size;
           inner(at, cos, sin, within, rope);
         });
}

std::vector<DefectVariant> chunks_of_positions() {
  std::vector<DefectVariant> variants;
  for (const double size : {16, 32, 64})
    variants.push_back(
        {constant("chunk", size), [size](Variant& altered) { restart_positions(altered, size); }});
  return variants;
}

bool has_yarn(const Config& c) { return c.rope.yarn && c.rope.factor > 1; }

std::vector<DefectVariant> wrong_theta() {
  std::vector<DefectVariant> variants;
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
       {{"besides the scale", amplify},
        {"besides the scale, in MLA only", amplify_mla},
        {"in place of the scale", amplify_instead}},
       Constant{"m", between(0.3, 3), false, amplify_by}},
      {64,
       "yarn-gated-off",
       "YaRN depends on the length of the run: neither its frequencies nor its scale are applied.",
       issue("AI-Hypercomputer/maxtext", 1370),
       query,
       has_yarn,
       {config_variant("", gated_off)}},
      {65, "yarn-frequencies", "The frequencies are not YaRN's, or its ramp is wrong.",
       issue("pytorch/torchtitan", 3787), query, has_yarn, wrong_yarn(),
       Constant{"factor", between(1, 200), false,
                [](Variant& a, double factor) {
                  frequencies("", [factor](Rope& r) { r.factor = factor; }).apply(a);
                }}},
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
      {112,
       "yarn-default-betas",
       "YaRN's beta_fast and beta_slow are the defaults 32 and 1, not the config's.",
       issue("radixark/miles", 335),
       query,
       has_own_betas,
       {frequencies("", [](Rope& r) { r.beta_fast = 32, r.beta_slow = 1; })}},
      {117,
       "key-rope-clipped",
       "A narrow cache clips k_rope: its one scale is taken from c_kv, whose values are smaller.",
       issue("vllm-project/vllm", 42956),
       "self_attn.heads",
       any_model,
       {{"at the largest |c_kv|", clip_key_at_latent},
        {"bound=1", [](Variant& a) { clip_key(a, 1); }}},
       Constant{"bound", between(1e-3, 1e3), false, clip_key}},
      {219,
       "key-rope-one-off",
       "Plausible: k_rope is cached one position early or late, so that a key has its neighbour's.",
       "",
       "self_attn.heads",
       any_model,
       {shifted_key("early", 1), shifted_key("late", -1)}},
      {228, "rope-positions-of-chunk",
       "Plausible: positions are counted from the beginning of a chunk.", "", query, any_model,
       chunks_of_positions(),
       Constant{"chunk", between(4, 128), true,
                [](Variant& a, double chunk) { restart_positions(a, chunk); }}},
      {310, "rope-theta", "Plausible: rope_theta is a default's, not the config's.", "", query,
       any_model, wrong_theta(),
       Constant{"theta", between(100, 1e8), false,
                [](Variant& a, double theta) {
                  frequencies("", [theta](Rope& r) { r.theta = theta; }).apply(a);
                }}},
  };
}

}  // namespace dsa::verify
