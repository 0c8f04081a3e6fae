// RMSNorm: of the blocks and of MLA's latents.
#include "core/dtype.hpp"
#include "verify/defects/alter.hpp"

namespace dsa::verify {
namespace {

const std::string block = "input_layernorm", query_latent = "self_attn.q_a_layernorm",
                  key_latent = "self_attn.kv_a_layernorm";

constexpr double of_transformers = 1e-6;  // eps of its class, which the latents' norms get

double mean_square(View<const double, 1> x) {
  double sum = 0;
  for (double value : x) sum += value * value;
  return sum / static_cast<double>(x.shape[0]);
}

double in_bf16(double x) { return round_to(Dtype::bf16, x); }

double mean_of_bf16_sum(View<const double, 1> x) {
  double sum = 0;
  for (double value : x) sum = in_bf16(sum + in_bf16(value * value));
  return sum / static_cast<double>(x.shape[0]);
}

/// As torch has it: every result of x.bfloat16().pow(2).mean() is rounded, the sum is not.
double bf16_mean_of_bf16(View<const double, 1> x) {
  double sum = 0;
  for (double value : x) sum += in_bf16(in_bf16(value) * in_bf16(value));
  return in_bf16(sum / static_cast<double>(x.shape[0]));
}

double bf16_mean(View<const double, 1> x) { return in_bf16(mean_square(x)); }

std::vector<DefectVariant> epsilons(double Config::*which) {
  std::vector<DefectVariant> variants;
  for (const double eps : {1e-5, 1e-4, 1e-3, 1e-6, 1e-8})
    variants.push_back(config_variant(constant("eps", eps), [=](Config& c) { c.*which = eps; }));
  return variants;
}

void set_every_eps(Variant& altered, double eps) {
  altered.model.config.rms_norm_eps = altered.model.config.latent_norm_eps = eps;
}

std::vector<DefectVariant> every_epsilon() {
  std::vector<DefectVariant> variants;
  for (const double eps : {1e-5, 1e-4, 1e-3})
    variants.push_back({constant("eps", eps), [eps](Variant& a) { set_every_eps(a, eps); }});
  return variants;
}

void set_key_latent_eps(Variant& altered, double wrong) {
  around(altered.ops.rmsnorm, ends(key_latent),
         [wrong](const auto& inner, Name name, Out y, In x, const Parameter& g, double) {
           inner(name, y, x, g, wrong);
         });
}

std::vector<DefectVariant> key_latent_epsilons() {
  std::vector<DefectVariant> variants;
  for (const double eps : {1e-5, 1e-4, 1e-3, 1e-8})
    variants.push_back({constant("eps", eps), [eps](Variant& a) { set_key_latent_eps(a, eps); }});
  return variants;
}

/// y times sqrt(right mean square / wrong mean square), each with eps.
void scaled_by_mean_square(Variant& altered, Where where,
                           std::function<double(View<const double, 1> x, Index t)> wrong) {
  around(altered.ops.rmsnorm, std::move(where),
         [wrong](const auto& inner, Name name, Out y, In x, const Parameter& g, double eps) {
           inner(name, y, x, g, eps);
           for (Index t = 0; t < x.shape[0]; ++t) {
             const double factor = std::sqrt((mean_square(x[t]) + eps) / (wrong(x[t], t) + eps));
             for (double& value : y[t]) value *= factor;
           }
         });
}

DefectVariant mean_square_by(std::string name, double (*wrong)(View<const double, 1>)) {
  return {std::move(name), [wrong](Variant& altered) {
            scaled_by_mean_square(altered, anywhere(),
                                  [wrong](View<const double, 1> x, Index) { return wrong(x); });
          }};
}

/// The mean square is taken over [c_kv | k_rope].
void over_latent_and_rope(Variant& altered) {
  const Memory<Tensor<double, 2>> kv_a;
  around(altered.ops.linear, ends("self_attn.kv_a_proj_with_mqa"),
         [kv_a](const auto& inner, Name name, Out y, In x, const Linear& w) {
           inner(name, y, x, w);
           kv_a.put(copy_of(y));
         });
  scaled_by_mean_square(altered, ends(key_latent), [kv_a](View<const double, 1>, Index t) {
    return mean_square(kv_a.get().view()[t]);
  });
}

DefectVariant left_out(std::string name, const std::string& end) {
  return {std::move(name), [end](Variant& altered) {
            around(altered.ops.rmsnorm, ends(end),
                   [](const auto&, Name, Out y, In x, auto&&...) { copy_into(y, x); });
          }};
}

/// (1 + g) x / rms.
void gain_plus_one(Variant& altered) {
  around(altered.ops.rmsnorm, anywhere(),
         [](const auto& inner, Name name, Out y, In x, const Parameter& g, double eps) {
           inner(name, y, x, g, eps);
           for (Index t = 0; t < x.shape[0]; ++t) {
             const double rms = std::sqrt(mean_square(x[t]) + eps);
             for (Index c = 0; c < x.shape[1]; ++c) y(t, c) += x(t, c) / rms;
           }
         });
}

void mean_subtracted(Variant& altered) {
  around(altered.ops.rmsnorm, anywhere(),
         [](const auto& inner, Name name, Out y, In x, const Parameter& g, double eps) {
           Tensor<double, 2> centred = copy_of(x);
           for (Index t = 0; t < x.shape[0]; ++t) {
             double mean = 0;
             for (double value : x[t]) mean += value / static_cast<double>(x.shape[1]);
             for (double& value : centred.view()[t]) value -= mean;
           }
           inner(name, y, centred, g, eps);
         });
}

std::vector<Defect> of_eps() {
  Defect of_config{
      109,
      "latent-norm-eps-of-config",
      "The latents' norms use rms_norm_eps, as vLLM, SGLang, Megatron and llama.cpp do; "
      "transformers uses 1e-6 whatever the config says.",
      repository("ggml-org/llama.cpp"),
      query_latent,
      [](const Config& c) { return c.q_lora_rank && c.rms_norm_eps != of_transformers; },
      {config_variant("", [](Config& c) {  // whichever of the two the definition does not follow
        c.latent_norm_eps = c.latent_norm_eps == c.rms_norm_eps ? of_transformers : c.rms_norm_eps;
      })}};
  of_config.convention = true;
  return {
      {68, "block-norm-eps", "The blocks' norms use another eps than the config's.",
       issue("pytorch/torchtitan", 4395), block, any_model, epsilons(&Config::rms_norm_eps),
       Constant{"eps", between(1e-9, 1), false,
                [](Variant& a, double eps) { a.model.config.rms_norm_eps = eps; }}},
      {68, "every-norm-eps", "Every RMSNorm, those of the latents too, uses the same wrong eps.",
       issue("pytorch/torchtitan", 4395), block, any_model, every_epsilon(),
       Constant{"eps", between(1e-9, 1), false, set_every_eps}},
      {68,
       "latent-norm-eps",
       "The norms of MLA's latents use another eps than 1e-6.",
       issue("huggingface/transformers", 44261),
       query_latent,
       [](const Config& c) { return c.q_lora_rank.has_value(); },
       {config_variant("eps=1e-05", [](Config& c) { c.latent_norm_eps = 1e-5; }),
        config_variant("eps=0.0001", [](Config& c) { c.latent_norm_eps = 1e-4; }),
        config_variant("eps=0.001", [](Config& c) { c.latent_norm_eps = 1e-3; }),
        config_variant("eps=1e-08", [](Config& c) { c.latent_norm_eps = 1e-8; })},
       Constant{"eps", between(1e-9, 1), false,
                [](Variant& a, double eps) { a.model.config.latent_norm_eps = eps; }}},
      {68, "key-latent-norm-eps", "Only kv_a_layernorm uses another eps than 1e-6.",
       issue("huggingface/transformers", 44585), key_latent, any_model, key_latent_epsilons(),
       Constant{"eps", between(1e-9, 1), false, set_key_latent_eps}},
      of_config,
  };
}

std::vector<Defect> of_formula() {
  return {
      {69,
       "norm-reduced-in-bf16",
       "RMSNorm takes its mean square in bf16.",
       issue("deepseek-ai/DeepSeek-V3", 969),
       block,
       any_model,
       {mean_square_by("running sum", mean_of_bf16_sum),
        mean_square_by("input, squares and mean", bf16_mean_of_bf16),
        mean_square_by("mean", bf16_mean)}},
      {218,
       "key-latent-norm",
       "Plausible: kv_a_layernorm is left out, or its mean square is taken over the rotary "
       "channels too.",
       "",
       key_latent,
       any_model,
       {left_out("missing", key_latent), {"over R+P", over_latent_and_rope}}},
      {301,
       "norm-gain-plus-one",
       "Plausible: RMSNorm multiplies by 1 + g, as Gemma's does.",
       "",
       block,
       any_model,
       {{"", gain_plus_one}}},
      {302,
       "norm-subtracts-mean",
       "Plausible: LayerNorm stands where RMSNorm should.",
       "",
       block,
       any_model,
       {{"", mean_subtracted}}},
      {305,
       "final-norm-missing",
       "Plausible: model.norm is left out.",
       "",
       "model.norm",
       any_model,
       {left_out("", "model.norm")}},
  };
}

}  // namespace

std::vector<Defect> norm_defects() {
  std::vector<Defect> all = of_eps();
  const std::vector<Defect> more = of_formula();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace dsa::verify
