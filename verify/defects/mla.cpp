// Multi-head latent attention but for its rotary embedding (rope.cpp) and norms (norm.cpp).
#include <limits>

#include "reference/ops/dot.hpp"
#include "reference/ops/rope.hpp"
#include "verify/defects/alter.hpp"

namespace dsa::verify {
namespace {

const std::string heads = "self_attn.heads";

double plain_scale(const Config& c) { return 1 / std::sqrt(static_cast<double>(c.qk_head_dim())); }

double mscale_once(const Config& c) { return plain_scale(c) * mscale(c, c.rope.mscale_all_dim); }
double mscale_twice(const Config& c) {
  return plain_scale(c) * std::pow(mscale(c, c.rope.mscale_all_dim), 4);
}

DefectVariant softmax_scale(std::string name, double (*scale)(const Config&)) {
  return {std::move(name), [scale](Variant& altered) {
            const double wrong = scale(altered.model.config);
            around_attention(altered, [wrong](Name, AttentionTold& told) { told.scale = wrong; });
          }};
}

/// kv (S, N, B+U) read otherwise: from(kv[s], n, i) takes the place of kv(s, n, i).
DefectVariant kv_read(std::string name,
                      std::function<double(In kv, Index B, Index n, Index i)> from) {
  return {std::move(name), [from](Variant& altered) {
            around(altered.ops.mla_expanded, anywhere(),
                   [from](const auto& inner, Name at, Out3 out, In3 q_nope, In3 q_rope, In3 kv,
                          In k_rope, Keys chosen, double scale) {
                     Tensor<double, 3> wrong(kv.shape);
                     for (Index s = 0; s < kv.shape[0]; ++s)
                       for (Index n = 0; n < kv.shape[1]; ++n)
                         for (Index i = 0; i < kv.shape[2]; ++i)
                           wrong(s, n, i) = from(kv[s], q_nope.shape[2], n, i);
                     inner(at, out, q_nope, q_rope, wrong, k_rope, chosen, scale);
                   });
          }};
}

/// Rows of kv_b as all heads' W_UK, then all heads' W_UV.
double all_keys_first(In kv, Index B, Index n, Index i) {
  const Index N = kv.shape[0], U = kv.shape[1] - B;
  return kv.data[i < B ? n * B + i : N * B + n * U + i - B];
}

/// Rows of kv_b as (B+U, N).
double heads_last(In kv, Index, Index n, Index i) { return kv.data[i * kv.shape[0] + n]; }

/// [v | k_nope] for [k_nope | v].
double halves_swapped(In kv, Index B, Index n, Index i) {
  const Index U = kv.shape[1] - B;
  return kv(n, i < B ? U + i : i - B);
}

/// Channel u of v is channel u of k_nope (the last one, where that is shorter).
double keys_as_values(In kv, Index B, Index n, Index i) {
  return kv(n, i < B ? i : std::min(i - B, B - 1));
}

/// log sum exp of the attention logits of one query and head.
double log_sum_exp(View<const Index, 1> keys, const std::function<double(Index)>& logit) {
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (Index s : keys)
    if (s >= 0) largest = std::max(largest, logit(s));
  for (Index s : keys)
    if (s >= 0) sum += std::exp(logit(s) - largest);
  return largest + std::log(sum);
}

/// The keys of `chosen` that are before (or behind) the middle.
Tensor<Index, 2> half_of(Keys chosen, Index middle, bool before) {
  Tensor<Index, 2> half(chosen.shape, -1);
  for (Index t = 0; t < chosen.shape[0]; ++t) {
    Index i = 0;
    for (Index s : chosen[t])
      if (s >= 0 && (s < middle) == before) half(t, i++) = s;
  }
  return half;
}

/// Keys in two parts, each with its log-sum-exp, merged by powers of 2 where they are of e.
void merge_in_base_two(Variant& altered) {
  around(altered.ops.mla_expanded, anywhere(),
         [](const auto& inner, Name name, Out3 out, In3 q_nope, In3 q_rope, In3 kv, In k_rope,
            Keys chosen, double scale) {
           const auto [T, N, U] = out.shape;
           const Index B = q_nope.shape[2], P = q_rope.shape[2];
           const Tensor<Index, 2> old = half_of(chosen, kv.shape[0] / 2, true),
                                  recent = half_of(chosen, kv.shape[0] / 2, false);
           Tensor<double, 3> one(out.shape), two(out.shape);
           inner(name, one, q_nope, q_rope, kv, k_rope, old, scale);
           inner(name, two, q_nope, q_rope, kv, k_rope, recent, scale);
           for (Index t = 0; t < T; ++t)
             for (Index n = 0; n < N; ++n) {
               const auto logit = [&](Index s) {
                 return scale * (reference::dot(q_nope[t][n].data, kv[s][n].data, B) +
                                 reference::dot(q_rope[t][n].data, k_rope[s].data, P));
               };
               const bool any_old = old(t, 0) >= 0, any_recent = recent(t, 0) >= 0;
               double share = any_old ? 1 : 0;  // of the old keys
               if (any_old && any_recent)
                 share = 1 / (1 + std::exp2(log_sum_exp(recent.view()[t], logit) -
                                            log_sum_exp(old.view()[t], logit)));
               for (Index u = 0; u < U; ++u)
                 out(t, n, u) = share * one(t, n, u) + (1 - share) * two(t, n, u);
             }
         });
}

/// A query's head read as [rotary | rest]. The rest of the split is what the rope op is told.
void query_split_swapped(Variant& altered) {
  const Memory<Tensor<double, 2>> q;
  const Config& c = altered.model.config;
  const Index N = c.num_attention_heads, B = c.qk_nope_head_dim, P = c.qk_rope_head_dim;
  around(
      altered.ops.linear,
      [](Name name) {
        return name.ends_with("self_attn.q_b_proj") || name.ends_with("self_attn.q_proj");
      },
      [q](const auto& inner, Name name, Out y, In x, const Linear& w) {
        inner(name, y, x, w);
        q.put(copy_of(y));
      });
  around(altered.ops.rope, ends("self_attn.q_rope"),
         [=](const auto& inner, Name name, Out3 x, In cos, In sin, RopeLayout layout) {
           const Tensor<double, 2>& whole = q.get();
           for (Index t = 0; t < x.shape[0]; ++t)
             for (Index n = 0; n < N; ++n)
               for (Index i = 0; i < P; ++i) x(t, n, i) = whole(t, n * (B + P) + i);
           inner(name, x, cos, sin, layout);
         });
  around(altered.ops.mla_expanded, anywhere(),
         [=](const auto& inner, Name name, Out3 out, In3 q_nope, In3 q_rope, In3 kv, In k_rope,
             Keys chosen, double scale) {
           const Tensor<double, 2>& whole = q.get();
           Tensor<double, 3> rest(q_nope.shape);
           for (Index t = 0; t < q_nope.shape[0]; ++t)
             for (Index n = 0; n < N; ++n)
               for (Index i = 0; i < B; ++i) rest(t, n, i) = whole(t, n * (B + P) + P + i);
           inner(name, out, rest, q_rope, kv, k_rope, chosen, scale);
         });
}

bool unequal_mscales(const Config& c) {
  return has_softmax_mscale(c) && c.rope.mscale != c.rope.mscale_all_dim;
}

std::vector<Defect> of_scale() {
  return {
      {61,
       "softmax-mscale-of-wrong-key",
       "The softmax scale's YaRN factor is computed from mscale instead of mscale_all_dim.",
       issue("NVIDIA/Megatron-LM", 1429),
       heads,
       unequal_mscales,
       {softmax_scale("",
                      [](const Config& c) {
                        return plain_scale(c) * std::pow(mscale(c, c.rope.mscale), 2);
                      })}},
      {62,
       "softmax-mscale",
       "YaRN's factor mscale^2 of the softmax scale is missing, or not squared, or applied twice.",
       issue("onnxruntime/mobius", 548),
       heads,
       has_softmax_mscale,
       {softmax_scale("missing", plain_scale), softmax_scale("once", mscale_once),
        softmax_scale("twice", mscale_twice)}},
      {64,
       "softmax-scale-inverted",
       "The query is divided by the softmax scale.",
       issue("AI-Hypercomputer/maxtext", 1370),
       heads,
       any_model,
       {softmax_scale("", [](const Config& c) { return 1 / c.attention_scale(); })}},
      {313,
       "softmax-scale-off",
       "Plausible: the softmax scale is missing or off by a factor, such as ln 2 where a kernel "
       "takes powers of 2 for powers of e.",
       "",
       heads,
       any_model,
       {softmax_scale("missing", [](const Config&) { return 1.0; }),
        softmax_scale("ln 2", [](const Config& c) { return c.attention_scale() * std::log(2.0); }),
        softmax_scale("1/ln 2",
                      [](const Config& c) { return c.attention_scale() / std::log(2.0); })},
       Constant{"times", between(0.05, 20), false,
                [](Variant& a, double factor) {
                  const double wrong = factor * a.model.config.attention_scale();
                  around_attention(a, [wrong](Name, AttentionTold& told) { told.scale = wrong; });
                }}},
      {108,
       "attention-factor-twice",
       "The factor that multiplies cos and sin multiplies the softmax scale as well; 1 unless "
       "mscale and mscale_all_dim differ.",
       repository("ggml-org/llama.cpp"),
       heads,
       [](const Config& c) { return reference::rope_attention_factor(c.rope) != 1; },
       {softmax_scale("once",
                      [](const Config& c) {
                        return c.attention_scale() * reference::rope_attention_factor(c.rope);
                      }),
        softmax_scale("squared",
                      [](const Config& c) {
                        return c.attention_scale() *
                               std::pow(reference::rope_attention_factor(c.rope), 2);
                      })}},
      {215,
       "softmax-scale-of-absorbed-width",
       "Plausible: the softmax scale is taken from the absorbed width R+P, not from B+P.",
       "",
       heads,
       any_model,
       {softmax_scale("",
                      [](const Config& c) {
                        return c.attention_scale() / plain_scale(c) /
                               std::sqrt(static_cast<double>(c.kv_lora_rank + c.qk_rope_head_dim));
                      })}},
  };
}

std::vector<Defect> of_attention_heads() {
  return {
      {71,
       "kv-b-in-another-layout",
       "kv_b_proj is split into W_UK and W_UV in another layout than head by head.",
       issue("vllm-project/vllm", 56773),
       heads,
       any_model,
       {kv_read("all keys first", all_keys_first), kv_read("heads last", heads_last)}},
      {72,
       "partial-attention-merged-in-base-two",
       "Attention over two parts of the keys is merged by 2^lse where lse is a natural logarithm.",
       issue("sgl-project/sglang", 40903),
       heads,
       any_model,
       {{"", merge_in_base_two}}},
      {216,
       "kv-b-halves-swapped",
       "Plausible: W_UK and W_UV change places within a head.",
       "",
       heads,
       any_model,
       {kv_read("", halves_swapped)}},
      {311,
       "keys-as-values",
       "Plausible: the attention sums k_nope where v is meant.",
       "",
       heads,
       any_model,
       {kv_read("", keys_as_values)}},
      {312,
       "query-split-swapped",
       "Plausible: a query's head is split as the indexer's is, rotary channels first.",
       "",
       "self_attn.q_rope",
       any_model,
       {{"", query_split_swapped}}},
  };
}

}  // namespace

std::vector<Defect> mla_defects() {
  std::vector<Defect> all = of_scale();
  const std::vector<Defect> more = of_attention_heads();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace dsa::verify
