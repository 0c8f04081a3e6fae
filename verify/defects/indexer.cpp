// The lightning indexer up to its inputs: query, key, head weights.
#include "core/dtype.hpp"
#include "reference/ops/hadamard.hpp"
#include "verify/defects/alter.hpp"
#include "verify/defects/indexer_parts.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {
namespace {

const std::string query = "self_attn.indexer.q", key = "self_attn.indexer.k",
                  head_weights = "self_attn.indexer.weights_proj",
                  index_scores = "self_attn.indexer.scores", normed = "self_attn.indexer.k_norm";

bool has_layer_norm(const Config& c) {
  return c.indexer && c.indexer->key_norm == Indexer::KeyNorm::layer_norm;
}
bool has_head_weights(const Config& c) {
  return c.indexer && c.indexer->head_weights == Indexer::HeadWeights::projected;
}
bool rotates(const Config& c, RopeLayout layout) {
  return c.indexer && c.indexer->rope_layout == layout;
}
bool reads_latent(const Config& c) {
  return c.indexer && c.q_lora_rank && c.indexer->query_source == Indexer::QuerySource::q_latent;
}

DefectVariant layout(RopeLayout to) {
  return config_variant("", [to](Config& c) { c.indexer->rope_layout = to; });
}

RopeLayout other(RopeLayout layout) {
  return layout == RopeLayout::half ? RopeLayout::interleaved : RopeLayout::half;
}

void turn_key_the_other_way(Variant& altered) {
  around(altered.ops.rope, ends(key),
         [](const auto& inner, Name name, Out3 x, In cos, In sin, RopeLayout is) {
           inner(name, x, cos, sin, other(is));
         });
}

void query_from_raw_latent(Variant& altered) {
  const Memory<Tensor<double, 2>> raw;
  around(altered.ops.rmsnorm, ends("self_attn.q_a_layernorm"),
         [raw](const auto& inner, Name name, Out y, In x, const Parameter& g, double eps) {
           raw.put(copy_of(x));
           inner(name, y, x, g, eps);
         });
  around(altered.ops.linear, ends("self_attn.indexer.wq_b"),
         [raw](const auto& inner, Name name, Out y, In, const Linear& w) {
           inner(name, y, raw.get().view(), w);
         });
}

/// LayerNorm less its bias; or with `rms`, RMSNorm plus the bias.
void change_key_norm(Variant& altered, bool rms) {
  around(altered.ops.index_key_norm, anywhere(),
         [rms](const auto& inner, Name name, Out y, In x, const IndexerWeights& w,
               const Indexer& indexer) {
           Indexer told = indexer;
           if (rms) told.key_norm = Indexer::KeyNorm::rms_norm;
           inner(name, y, x, w, told);
           const std::vector<double> b = read_all<double>(w.k_norm_bias);
           for (Index i = 0; i < y.size(); ++i) {
             const double shift = b[static_cast<std::size_t>(i % y.shape[1])];
             y.data[i] += rms ? shift : -shift;
           }
         });
}

void key_norm_in_bf16(Variant& altered) {
  for (Layer& layer : altered.model.weights.layers) {
    layer.indexer.k_norm.loaded_as = Dtype::bf16;
    layer.indexer.k_norm_bias.loaded_as = Dtype::bf16;
  }
}

/// sqrt(var D/(D-1) + eps) for sqrt(var + eps).
void unbiased_variance(Variant& altered) {
  around(altered.ops.index_key_norm, anywhere(),
         [](const auto& inner, Name name, Out y, In x, const IndexerWeights& w,
            const Indexer& indexer) {
           const double shrink =
               static_cast<double>(x.shape[1] - 1) / static_cast<double>(x.shape[1]);
           Indexer told = indexer;
           told.key_norm_eps *= shrink;
           inner(name, y, x, w, told);
           const std::vector<double> b = read_all<double>(w.k_norm_bias);
           for (Index i = 0; i < y.size(); ++i) {
             const double shift = b[static_cast<std::size_t>(i % y.shape[1])];
             y.data[i] = (y.data[i] - shift) * std::sqrt(shrink) + shift;
           }
         });
}

/// The rotated key reaches an op whole where it is cached.
void key_norm_after_rope(Variant& altered) {
  using Norm = std::function<void(Out, In)>;
  const Memory<Norm> norm;
  around(altered.ops.index_key_norm, anywhere(),
         [norm](const auto& inner, Name name, Out y, In x, const IndexerWeights& w,
                const Indexer& indexer) {
           norm.put([=](Out to, In from) { inner(name, to, from, w, indexer); });
           copy_into(y, x);
         });
  around(altered.ops.cache, ends(key), [norm](const auto& inner, Name name, Out k) {
    const Tensor<double, 2> rotated = copy_of(k);
    norm.get()(k, rotated);
    inner(name, k);
  });
}

void hadamard_before_rope(Variant& altered) {
  const Index D = altered.model.config.indexer->head_dim;
  around(altered.ops.linear, ends("self_attn.indexer.wq_b"),
         [D](const auto& inner, Name name, Out y, In x, const Linear& w) {
           inner(name, y, x, w);
           reference::hadamard<double>({y.data, {y.size() / D, D}});
         });
  around(altered.ops.index_key_norm, anywhere(),
         [](const auto& inner, Name name, Out y, In x, const IndexerWeights& w,
            const Indexer& indexer) {
           inner(name, y, x, w, indexer);
           reference::hadamard(y);
         });
}

void weights_in_bf16(Variant& altered) {
  around(altered.ops.index_head_weights, anywhere(),
         [](const auto& inner, Name name, Out w, In x, const Linear& p) {
           Tensor<double, 2> x16 = copy_of(x);
           for (double& value : x16) value = round_to(Dtype::bf16, value);
           Linear p16 = p;
           p16.weight.loaded_as = Dtype::bf16;
           inner(name, w, x16, p16);
           for (double& value : w) value = round_to(Dtype::bf16, value);
         });
}

/// Every row of head weights w (H) goes through f.
DefectVariant weights_through(std::string name, std::function<void(View<double, 1>)> f) {
  return {std::move(name), [f = std::move(f)](Variant& altered) {
            around(altered.ops.index_head_weights, anywhere(),
                   [f](const auto& inner, Name at, Out w, In x, const Linear& p) {
                     inner(at, w, x, p);
                     for (Index t = 0; t < w.shape[0]; ++t) f(w[t]);
                   });
          }};
}

DefectVariant weights_each(std::string name, double (*f)(double)) {
  return weights_through(std::move(name), [f](View<double, 1> w) {
    for (double& value : w) value = f(value);
  });
}

void softmax_of(View<double, 1> w, double factor) {
  double sum = 0;
  const double largest = *std::max_element(w.begin(), w.end());
  for (double& value : w) sum += value = std::exp(factor * (value - largest));
  for (double& value : w) value /= sum;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<DefectVariant> squashed_weights() {
  return {weights_through("softmax", [](View<double, 1> w) { softmax_of(w, 1); }),
          weights_through("softmax of scaled",
                          [](View<double, 1> w) {
                            softmax_of(w, 1 / std::sqrt(static_cast<double>(w.shape[0])));
                          }),
          weights_each("sigmoid", sigmoid),
          weights_through("sigmoid of scaled",
                          [](View<double, 1> w) {
                            const double scale = 1 / std::sqrt(static_cast<double>(w.shape[0]));
                            for (double& value : w) value = sigmoid(scale * value);
                          }),
          weights_each("abs", [](double w) { return std::abs(w); }),
          weights_each("ones", [](double) { return 1.0; })};
}

std::vector<DefectVariant> key_norm_epsilons() {
  std::vector<DefectVariant> variants;
  for (const double eps : {1e-5, 1e-4, 1e-3, 1e-8})
    variants.push_back(
        config_variant(constant("eps", eps), [eps](Config& c) { c.indexer->key_norm_eps = eps; }));
  variants.push_back(config_variant("eps=rms_norm_eps",
                                    [](Config& c) { c.indexer->key_norm_eps = c.rms_norm_eps; }));
  return variants;
}

DefectVariant no_rope(std::string name, Where where) {
  return {std::move(name), [where](Variant& altered) { leave_out(altered.ops.rope, where); }};
}

std::vector<Defect> of_rotation() {
  const auto half = [](const Config& c) { return rotates(c, RopeLayout::half); };
  const auto interleaved = [](const Config& c) { return rotates(c, RopeLayout::interleaved); };
  return {
      {1,
       "indexer-rope-interleaved",
       "The indexer rotates channels (2i, 2i+1); the checkpoint was trained with (i, i + P/2).",
       issue("sgl-project/sglang", 13495),
       query,
       half,
       {layout(RopeLayout::interleaved)}},
      {2,
       "indexer-rope-key-convention",
       "Only the indexer's key is rotated in the other convention; its query is right.",
       issue("vllm-project/vllm-ascend", 4641),
       key,
       has_indexer,
       {{"", turn_key_the_other_way}}},
      {4,
       "indexer-rope-half-split",
       "indexer_rope_interleave is not read: channels (i, i + P/2) are rotated, not (2i, 2i+1).",
       issue("huggingface/transformers", 46842),
       query,
       interleaved,
       {layout(RopeLayout::half)}},
      {5,
       "indexer-rope-last-channels",
       "The indexer's head is split as MLA's is, rotary channels last: the wrong channels are "
       "rotated.",
       issue("NVIDIA/Megatron-LM", 3026),
       query,
       has_indexer,
       {config_variant("", [](Config& c) { c.indexer->rope_first = !c.indexer->rope_first; }),
        config_variant("and in MLA's convention",
                       [](Config& c) {
                         c.indexer->rope_first = !c.indexer->rope_first;
                         c.indexer->rope_layout = other(c.indexer->rope_layout);
                       })}},
      {7,
       "indexer-rope-missing",
       "The indexer's query, or query and key, are not rotated.",
       issue("PaddlePaddle/PaddleFleet", 1210),
       query,
       has_indexer,
       {no_rope("query and key", contains("self_attn.indexer.")), no_rope("query", ends(query))}},
      {7,
       "indexer-key-rope-missing",
       "Only the indexer's key is not rotated.",
       issue("PaddlePaddle/PaddleFleet", 1210),
       key,
       has_indexer,
       {no_rope("", ends(key))}},
  };
}

std::vector<Defect> of_key_norm() {
  return {
      {10,
       "indexer-key-norm-rms",
       "The indexer's key goes through RMSNorm instead of LayerNorm.",
       issue("PaddlePaddle/FastDeploy", 7398),
       normed,
       has_layer_norm,
       {config_variant("without bias",
                       [](Config& c) { c.indexer->key_norm = Indexer::KeyNorm::rms_norm; }),
        {"with bias", [](Variant& a) { change_key_norm(a, true); }}}},
      {10,
       "indexer-key-norm-bias-missing",
       "LayerNorm of the indexer's key leaves out its bias.",
       issue("PaddlePaddle/FastDeploy", 7398),
       normed,
       has_layer_norm,
       {{"", [](Variant& a) { change_key_norm(a, false); }}}},
      {11, "indexer-key-norm-eps", "LayerNorm of the indexer's key uses another eps than 1e-6.",
       issue("ikawrakow/ik_llama.cpp", 2063), normed, has_layer_norm, key_norm_epsilons(),
       Constant{"eps", between(1e-9, 1), false,
                [](Variant& a, double eps) { a.model.config.indexer->key_norm_eps = eps; }}},
      {12,
       "indexer-key-norm-bf16",
       "Gain and bias of the indexer's LayerNorm are cast to bf16.",
       issue("ROCm/ATOM", 1796),
       normed,
       [](const Config& c) { return has_layer_norm(c) && c.dtype != Dtype::bf16; },
       {{"", key_norm_in_bf16}}},
      {212,
       "indexer-key-norm-after-rope",
       "Plausible: the indexer's key is normalised after its rotation, not before.",
       "",
       normed,
       has_layer_norm,
       {{"", key_norm_after_rope}}},
      {213,
       "indexer-key-norm-unbiased",
       "Plausible: LayerNorm of the indexer's key divides by the unbiased variance.",
       "",
       normed,
       has_layer_norm,
       {{"", unbiased_variance}}},
  };
}

std::vector<Defect> of_query_and_weights() {
  return {
      {6,
       "indexer-query-from-raw-latent",
       "The indexer's query is made from the latent before q_a_layernorm.",
       issue("huggingface/transformers", 47810),
       "self_attn.indexer.wq_b",
       reads_latent,
       {{"", query_from_raw_latent}}},
      {16,
       "indexer-head-weights-bf16",
       "weights_proj is computed in bf16 instead of fp32.",
       issue("sgl-project/sglang", 19041),
       head_weights,
       has_head_weights,
       {{"", weights_in_bf16}}},
      {17, "indexer-head-weights-squashed",
       "The head weights go through softmax, sigmoid or abs, or are all one; they are to be used "
       "as projected, signs included.",
       issue("ml-explore/mlx-lm", 1189), head_weights, has_head_weights, squashed_weights()},
      {210,
       "indexer-hadamard-before-rope",
       "Plausible: the Hadamard rotation comes before RoPE, with which it does not commute.",
       "",
       "self_attn.indexer.wq_b",
       has_power_of_two_index_head,
       {{"", hadamard_before_rope}}},
  };
}

}  // namespace

std::vector<Defect> indexer_defects() {
  std::vector<Defect> all;
  for (const auto& part : {of_rotation(), of_key_norm(), of_query_and_weights(),
                           index_score_defects(), index_place_defects()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
