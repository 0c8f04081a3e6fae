// The lightning indexer from query, key and head weights to scores.
#include <limits>

#include "reference/ops/hadamard.hpp"
#include "verify/defects/indexer_parts.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {

using reference::Visibility;

void around_score_inputs(Variant& altered, std::function<void(ScoreInputs&)> change) {
  around(altered.ops.indexer_scores, anywhere(),
         [change = std::move(change)](const auto& inner, Name name, Out scores, In3 q, In k, In w,
                                      const Indexer& indexer, const Visibility& visible) {
           ScoreInputs inputs{copy_of(q), copy_of(k), copy_of(w), indexer};
           change(inputs);
           inner(name, scores, inputs.q, inputs.k, inputs.w, inputs.indexer, visible);
         });
}

std::vector<Tensor<double, 2>> scores_by_head(const ScoresOp& inner, Name name, In3 q, In k, In w,
                                              const Indexer& indexer, const Visibility& visible) {
  const Index T = q.shape[0], H = q.shape[1], D = q.shape[2];
  std::vector<Tensor<double, 2>> scores;
  for (Index h = 0; h < H; ++h) {
    Tensor<double, 3> q_h({T, 1, D});
    Tensor<double, 2> w_h({T, 1});
    for (Index t = 0; t < T; ++t) {
      copy_into(q_h.view()[t][0], q[t][h]);
      w_h(t, 0) = w(t, h);
    }
    inner(name, scores.emplace_back(Shape<2>{T, k.shape[0]}), q_h, k, w_h, indexer, visible);
  }
  return scores;
}

namespace {

const std::string scores_tensor = "self_attn.indexer.scores";

/// What the inner op makes, f(scores, t, s) over every visible entry.
DefectVariant scores_each(std::string name, std::function<double(In, Index, Index)> f) {
  return {std::move(name), [f = std::move(f)](Variant& altered) {
            around(altered.ops.indexer_scores, anywhere(),
                   [f](const auto& inner, Name at, Out scores, auto&&... rest) {
                     inner(at, scores, rest...);
                     const Tensor<double, 2> right = copy_of(scores);
                     for (Index t = 0; t < scores.shape[0]; ++t)
                       for (Index s = 0; s < scores.shape[1]; ++s)
                         if (std::isfinite(right(t, s))) scores(t, s) = f(right, t, s);
                   });
          }};
}

DefectVariant inputs_variant(std::string name, void (*change)(ScoreInputs&)) {
  return {std::move(name), [change](Variant& altered) { around_score_inputs(altered, change); }};
}

DefectVariant scale_variant(std::string name, void (*change)(Indexer&)) {
  return config_variant(std::move(name), [change](Config& c) { change(*c.indexer); });
}

std::vector<DefectVariant> score_scales() {
  return {scale_variant("D^-1/2 missing", [](Indexer& i) { i.dot_scale = 1; }),
          scale_variant("D^-1/2 twice", [](Indexer& i) { i.dot_scale *= i.dot_scale; }),
          scale_variant("H^-1/2 missing", [](Indexer& i) { i.weight_scale = 1; }),
          scale_variant("H^-1/2 twice", [](Indexer& i) { i.weight_scale *= i.weight_scale; }),
          scale_variant("both missing", [](Indexer& i) { i.dot_scale = i.weight_scale = 1; }),
          scale_variant("both twice",
                        [](Indexer& i) {
                          i.dot_scale *= i.dot_scale;
                          i.weight_scale *= i.weight_scale;
                        }),
          config_variant("MLA's scale for D^-1/2",
                         [](Config& c) { c.indexer->dot_scale = c.attention_scale(); })};
}

/// What a factor of all scores is the ratio of; empty if of nothing that the config holds.
std::string ratio_of_scales(const Config& c, double factor) {
  constexpr double as_fitted = 2e-4;  // the roundest number that fits has four digits
  const double D = c.indexer->dot_scale, H = c.indexer->weight_scale,
               plain = 1 / std::sqrt(static_cast<double>(c.qk_head_dim()));
  for (const auto& [ratio, words] : std::initializer_list<std::pair<double, const char*>>{
           {c.attention_scale() / D, "MLA's softmax scale / the indexer's"},
           {plain / D, "qk_head_dim^-1/2 / index_head_dim^-1/2"},
           {c.attention_scale(), "MLA's softmax scale"},
           {1 / D, "index_head_dim^1/2"},
           {D, "index_head_dim^-1/2"},
           {1 / H, "index_n_heads^1/2"},
           {H, "index_n_heads^-1/2"},
           {1 / (D * H), "(index_head_dim index_n_heads)^1/2"},
           {D * H, "(index_head_dim index_n_heads)^-1/2"},
           {H * H, "1 / index_n_heads"},
           {1 / (H * H), "index_n_heads"},
           {D * D, "1 / index_head_dim"},
           {1 / (D * D), "index_head_dim"},
           {std::log(2.0), "ln 2"},
           {1 / std::log(2.0), "1 / ln 2"}})
    if (std::abs(factor / ratio - 1) <= as_fitted) return words;
  return "";
}

void best_head_only(Variant& altered) {
  around(altered.ops.indexer_scores, anywhere(),
         [](const auto& inner, Name name, Out scores, In3 q, In k, In w, const Indexer& indexer,
            const Visibility& visible) {
           std::fill(scores.begin(), scores.end(), -std::numeric_limits<double>::infinity());
           for (const auto& head : scores_by_head(inner, name, q, k, w, indexer, visible))
             for (Index i = 0; i < scores.size(); ++i)
               scores.data[i] = std::max(scores.data[i], head.data()[i]);
         });
}

void first_head_only(Variant& altered) {
  around_score_inputs(altered, [](ScoreInputs& in) {
    for (Index t = 0; t < in.w.shape()[0]; ++t)
      for (Index h = 1; h < in.w.shape()[1]; ++h) in.w(t, h) = 0;
  });
}

/// The scores of earlier layers stay in the shared mask that the next layer starts its sum from.
void sum_into_shared_mask(Variant& altered) {
  struct Polluted {
    Index layer;
    Tensor<double, 2> mask;
  };
  const Memory<Polluted> polluted;
  around(altered.ops.indexer_scores, anywhere(),
         [polluted](const auto& inner, Name name, Out scores, auto&&... rest) {
           inner(name, scores, rest...);
           const Index layer = layer_of(name);
           if (polluted.has() && polluted.get().layer < layer &&
               polluted.get().mask.shape() == scores.shape)
             for (Index i = 0; i < scores.size(); ++i)
               if (std::isfinite(scores.data[i])) scores.data[i] += polluted.get().mask.data()[i];
           polluted.put({layer, copy_of(scores)});
         });
}

/// The mask that is shared is the attention's too: it adds the scores to its logits. They enter as
/// rotary channels: bias(t, s) / scale of query t meets a one of key s.
void shared_mask_in_attention(Variant& altered) {
  sum_into_shared_mask(altered);
  const Memory<Tensor<double, 2>> mask;
  around(altered.ops.indexer_scores, anywhere(),
         [mask](const auto& inner, Name name, Out scores, auto&&... rest) {
           inner(name, scores, rest...);
           mask.put(copy_of(scores));
         });
  around(altered.ops.mla_expanded, anywhere(),
         [mask](const auto& inner, Name name, Out3 out, In3 q_nope, In3 q_rope, In3 kv, In k_rope,
                Keys chosen, double scale) {
           const auto [T, N, P] = q_rope.shape;
           const Index S = k_rope.shape[0];
           const Tensor<double, 2>& biases = mask.get();
           Tensor<double, 3> q({T, N, P + S});
           Tensor<double, 2> k({S, P + S});
           for (Index s = 0; s < S; ++s) {
             copy_into(k.view()[s], k_rope[s]);
             k(s, P + s) = 1;
           }
           for (Index t = 0; t < T; ++t)
             for (Index n = 0; n < N; ++n) {
               copy_into(q.view()[t][n], q_rope[t][n]);
               for (Index s = 0; s < S; ++s)
                 if (const double bias = biases(t, s); std::isfinite(bias))
                   q(t, n, P + s) = bias / scale;
             }
           inner(name, out, q_nope, q, kv, k, chosen, scale);
         });
}

/// Queries from `prefix` on meet keys before it that are not there: zeros.
void lose_prefix(Variant& altered, std::function<Index(Index S)> prefix) {
  around(altered.ops.indexer_scores, anywhere(),
         [prefix](const auto& inner, Name name, Out scores, In3 q, In k, In w,
                  const Indexer& indexer, const Visibility& visible) {
           inner(name, scores, q, k, w, indexer, visible);
           const Index T = scores.shape[0], lost = std::min(prefix(k.shape[0]), k.shape[0]);
           Tensor<double, 2> restored = copy_of(k), wrong(scores.shape);
           for (Index s = 0; s < lost; ++s)
             std::fill(restored.view()[s].begin(), restored.view()[s].end(), 0.0);
           inner(name, wrong, q, restored, w, indexer, visible);
           for (Index t = 0; t < T; ++t)
             if (visible.first + t >= lost) copy_into(scores[t], wrong.view()[t]);
         });
}

void lose_first_half(Variant& altered) {
  lose_prefix(altered, [](Index S) { return S / 2; });
}

/// Nothing is stored as long as every key is selected anyway.
void lose_first_selection(Variant& altered) {
  lose_prefix(altered, [K = altered.model.config.indexer->topk](Index) { return K; });
}

/// A view's offset is lost: from the second layer on, the cache is read where nothing was written.
void keys_beyond_first_layer_zero(Variant& altered) {
  around(altered.ops.cache, ends("self_attn.indexer.k"), [](const auto& inner, Name name, Out k) {
    inner(name, k);
    if (layer_of(name) > 0) std::fill(k.begin(), k.end(), 0.0);
  });
}

void rotate_query(ScoreInputs& in) {
  const auto [T, H, D] = in.q.shape();
  reference::hadamard<double>({in.q.data(), {T * H, D}});
}

void rotate_key(ScoreInputs& in) { reference::hadamard(in.k.view()); }

void unscaled_hadamard(ScoreInputs& in) {
  in.indexer.dot_scale *= static_cast<double>(in.k.shape()[1]);
}

/// relu(w q.k) for w relu(q.k): a negative weight turns the sign of q instead.
void weights_inside_relu(ScoreInputs& in) {
  const auto [T, H, D] = in.q.shape();
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < H; ++h)
      if (in.w(t, h) < 0) {
        in.w(t, h) = -in.w(t, h);
        for (Index d = 0; d < D; ++d) in.q(t, h, d) = -in.q(t, h, d);
      }
}

void mean_over_heads(ScoreInputs& in) {
  in.indexer.weight_scale /= static_cast<double>(in.w.shape()[1]);
}

DefectVariant zero_beyond(Index limit) {
  return scores_each("keys=" + std::to_string(limit), [limit](In scores, Index t, Index s) {
    return t >= limit ? 0 : scores(t, s);
  });
}

bool several_index_layers(const Config& c) {
  return c.indexer && std::count(c.indexer->computes.begin(), c.indexer->computes.end(), true) > 1;
}

std::vector<Defect> of_heads() {
  return {
      {8,
       "indexer-relu-missing",
       "The products of the indexer's heads are summed without ReLU.",
       issue("huggingface/transformers", 44360),
       scores_tensor,
       [](const Config& c) {
         return c.indexer && c.indexer->activation == Indexer::Activation::relu;
       },
       {config_variant("", [](Config& c) { c.indexer->activation = Indexer::Activation::none; })}},
      {9,
       "indexer-heads-not-summed",
       "The indexer's heads are not summed: the best head of a key counts, or only the first.",
       issue("ml-explore/mlx-lm", 531),
       scores_tensor,
       has_indexer,
       {{"maximum", best_head_only}, {"first head", first_head_only}}},
      {17,
       "indexer-heads-averaged",
       "Scores are the mean over heads, not the sum: the same selection, but scores (and the "
       "indexer's loss) H times smaller, which only a trace shows.",
       issue("ml-explore/mlx-lm", 1189),
       scores_tensor,
       has_indexer,
       {inputs_variant("", mean_over_heads)}},
      {24, "indexer-scale",
       "The scores are scaled otherwise: D^-1/2 or H^-1/2 is missing, applied twice or another's. "
       "The same selection, other scores, which only a trace shows.",
       issue("PaddlePaddle/PaddleFleet", 1322), scores_tensor, has_indexer, score_scales(),
       Constant{"times", between(1e-3, 1e3), false,
                [](Variant& a, double factor) { a.model.config.indexer->dot_scale *= factor; },
                ratio_of_scales}},
      {229,
       "indexer-weights-inside-relu",
       "Plausible: ReLU is taken of w q.k, not of q.k, which differs where w is negative.",
       "",
       scores_tensor,
       has_indexer,
       {inputs_variant("", weights_inside_relu)}},
  };
}

std::vector<Defect> of_keys() {
  return {
      {13,
       "indexer-hadamard-one-side",
       "Only one of query and key is rotated by Hadamard's matrix.",
       issue("ROCm/ATOM", 1507),
       scores_tensor,
       has_power_of_two_index_head,
       {inputs_variant("query", rotate_query), inputs_variant("key", rotate_key)}},
      {19,
       "indexer-scores-zero-beyond-limit",
       "The sum over heads silently yields zeros for sequences beyond a size limit.",
       issue("ml-explore/mlx-lm", 1454),
       scores_tensor,
       has_indexer,
       {zero_beyond(32), zero_beyond(64)},
       Constant{"keys", between(1, 128), true,
                [](Variant& a, double keys) { zero_beyond(static_cast<Index>(keys)).apply(a); }}},
      {22,
       "indexer-scores-in-shared-mask",
       "Scores are summed in place into the shared causal mask: later layers add to earlier ones.",
       issue("ikawrakow/ik_llama.cpp", 2069),
       scores_tensor,
       several_index_layers,
       {{"", sum_into_shared_mask}}},
      {22,
       "shared-mask-in-attention",
       "Scores are summed in place into the shared causal mask, which the attention then adds to "
       "its "
       "logits.",
       issue("ikawrakow/ik_llama.cpp", 2069),
       "self_attn.heads",
       has_indexer,
       {{"", shared_mask_in_attention}}},
      {94,
       "indexer-keys-zero-beyond-first-layer",
       "The index cache is read at a wrong offset beyond layer 0: all scores there are zero.",
       issue("ROCm/ATOM", 1466),
       scores_tensor,
       [](const Config& c) { return several_index_layers(c) && c.indexer->computes.size() > 1; },
       {{"", keys_beyond_first_layer_zero}}},
      {95,
       "indexer-prefix-keys-lost",
       "A restored prefix (here: the first half) brings no index keys: they are zero for what "
       "follows.",
       issue("kvcache-ai/Mooncake", 2236),
       scores_tensor,
       has_indexer,
       {{"", lose_first_half}},
       Constant{"prefix", between(1, 128), true,
                [](Variant& a, double prefix) {
                  lose_prefix(a, [prefix](Index) { return static_cast<Index>(prefix); });
                }}},
      {98,
       "indexer-keys-of-short-prefix-lost",
       "A shortcut for sequences of at most index_topk tokens stores no index keys: they are zero "
       "once more keys are seen.",
       issue("sgl-project/sglang", 11892),
       scores_tensor,
       has_indexer,
       {{"", lose_first_selection}}},
      {211,
       "indexer-hadamard-unscaled",
       "Plausible: the Hadamard matrix lacks its D^-1/2 on both sides: the same selection, scores "
       "D times larger, which only a trace shows.",
       "",
       scores_tensor,
       has_indexer,
       {inputs_variant("", unscaled_hadamard)}},
  };
}

}  // namespace

std::vector<Defect> index_score_defects() {
  std::vector<Defect> all = of_heads();
  const std::vector<Defect> more = of_keys();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace dsa::verify
