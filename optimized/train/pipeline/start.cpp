#include "optimized/train/pipeline/start.hpp"

#include <algorithm>
#include <cmath>
#include <deque>

#include "core/check.hpp"
#include "core/threads.hpp"
#include "core/checkpoint.hpp"
#include "core/random.hpp"

namespace dsa::train {
namespace {

using Numbers = std::deque<std::vector<float>>;

constexpr const char* sizes[] = {"vocab_size",
                                 "hidden_size",
                                 "intermediate_size",
                                 "moe_intermediate_size",
                                 "num_hidden_layers",
                                 "num_attention_heads",
                                 "q_lora_rank",
                                 "kv_lora_rank",
                                 "qk_rope_head_dim",
                                 "qk_nope_head_dim",
                                 "v_head_dim",
                                 "n_routed_experts",
                                 "n_shared_experts",
                                 "num_experts_per_tok",
                                 "n_group",
                                 "topk_group",
                                 "rms_norm_eps",
                                 "tie_word_embeddings",
                                 "routed_scaling_factor",
                                 "first_k_dense_replace",
                                 "num_nextn_predict_layers",
                                 "max_position_embeddings"};

constexpr const char* index_sizes[] = {"index_n_heads", "index_head_dim", "index_topk"};

/// Fills the parameters that have no bytes yet.
void fill_fresh(Weights& weights, const Config& config, const Settings& settings,
                Numbers& numbers) {
  const auto seed = static_cast<std::uint64_t>(settings.integer("run.seed"));
  for_each_tensor(weights, config,
                  [&](const std::string& name, Parameter& p, const std::vector<Index>& shape) {
                    if (p.present()) return;
                    p.name = name;
                    p.shape = shape;
                    p.dtype = Dtype::f32;
                    numbers.emplace_back(static_cast<std::size_t>(p.rows() * p.columns()));
                    draw_parameter(name, p.columns(), settings.number("model.init_std"), seed,
                                   numbers.back().data(), p.rows() * p.columns());
                    p.data = reinterpret_cast<const std::byte*>(numbers.back().data());
                  });
}

Start fresh_start(const Settings& settings) {
  Start start;
  start.config = fresh_config(settings);
  Model& model = start.model;
  model.config = parse_config(start.config, "[model]");
  model.weights = empty_weights(model.config);
  const auto numbers = std::make_shared<Numbers>();
  fill_fresh(model.weights, model.config, settings, *numbers);
  tie_weights(model.weights, model.config);
  model.memory = numbers;
  return start;
}

/// config.json of a dense checkpoint, as that of the sparse family.
Json with_indexer(Json json, const Settings& settings, const std::string& what) {
  const std::string type = json.value("model_type", "");
  require(type == "deepseek_v3" || type == "kimi_k2" || type == "deepseek_v32",
          what + " is of model_type " + in_quotes(type) +
              "; a fresh indexer is for deepseek_v3 checkpoints");
  json["model_type"] = "deepseek_v32";
  json["architectures"] = {"DeepseekV32ForCausalLM"};
  for (const char* key : index_sizes) json[key] = settings.at(std::string("model.") + key);
  return json;
}

Start start_with_indexer(const Settings& settings, const std::filesystem::path& directory) {
  struct Memory {
    StoredCheckpoint stored;
    Numbers numbers;
  };
  const auto memory = std::make_shared<Memory>(Memory{StoredCheckpoint::open(directory), {}});
  const std::string what = "config.json of " + directory.string();
  const Json json = with_indexer(read_json(directory / "config.json"), settings, what);
  Start start;
  Model& model = start.model;
  model.config = parse_config(json, what);
  model.weights = empty_weights(model.config);
  const CheckpointProblems problems = bind(memory->stored, model.config, model.weights);
  require(problems.none() || lacks_only_the_indexer(memory->stored, problems),
          directory.string() + " is no whole dense checkpoint of this config: " +
              (problems.missing.empty() ? "its tensors do not fit" : problems.missing.front()));
  require(!problems.none(),
          directory.string() + " has an indexer already; leave model.init_indexer out");
  fill_fresh(model.weights, model.config, settings, memory->numbers);
  tie_weights(model.weights, model.config);
  model.memory = memory;
  start.config = as_trained(json, model.config);
  return start;
}

}  // namespace

Compute compute_of(const Settings& settings) {
  return settings.text("model.compute") == "bf16" ? Compute::bf16 : Compute::fp32;
}

int threads_of(const Settings& settings) {
  const Index wanted = settings.integer("run.threads");
  return wanted > 0 ? static_cast<int>(wanted) : threads();
}

void draw_parameter(const std::string& name, Index columns, double init_std, std::uint64_t seed,
                    float* out, Index size) {
  const bool is_norm = name.ends_with("norm.weight");
  if (is_norm || columns == 1) {
    std::fill_n(out, size, is_norm ? 1.0f : 0.0f);
    return;
  }
  const double std = init_std > 0 ? init_std : 1 / std::sqrt(static_cast<double>(columns));
  const std::uint64_t stream = seed_of(name, random_bits(seed, seed_of("parameters")));
  for (Index i = 0; i < size; ++i)
    out[i] = static_cast<float>(std * gaussian(stream, static_cast<std::uint64_t>(i)));
}

Json fresh_config(const Settings& settings) {
  const std::string family = settings.text("model.family");
  Json json = {{"model_type", family},
               {"dtype", "float32"},
               {"hidden_act", "silu"},
               {"attention_bias", false},
               {"attention_dropout", 0.0},
               {"initializer_range", settings.at("model.init_std")},
               {"num_key_value_heads", settings.at("model.num_attention_heads")},
               {"rope_parameters",
                {{"rope_type", "default"}, {"rope_theta", settings.at("model.rope_theta")}}}};
  for (const char* key : sizes) json[key] = settings.at(std::string("model.") + key);
  const bool is_v2 = family == "deepseek_v2";
  if (is_v2) {
    json["topk_method"] = "greedy";
    json["scoring_func"] = "softmax";
  }
  json["norm_topk_prob"] = !is_v2;
  const bool has_indexer = family == "deepseek_v32" || family == "glm_moe_dsa";
  if (has_indexer) {
    for (const char* key : index_sizes) json[key] = settings.at(std::string("model.") + key);
    Json kinds = Json::array();
    for (Index l = 0; l < settings.integer("model.num_hidden_layers"); ++l)
      kinds.push_back(l < settings.integer("model.first_k_dense_replace") ? "dense" : "sparse");
    json["mlp_layer_types"] = kinds;
  }
  json["architectures"] = {family == "deepseek_v2"    ? "DeepseekV2ForCausalLM"
                           : family == "deepseek_v3"  ? "DeepseekV3ForCausalLM"
                           : family == "deepseek_v32" ? "DeepseekV32ForCausalLM"
                                                      : "GlmMoeDsaForCausalLM"};
  return json;
}

Json as_trained(Json config, const Config& parsed) {
  config.erase("quantization_config");
  config.erase("torch_dtype");
  config["dtype"] = "float32";
  config["num_nextn_predict_layers"] = parsed.num_nextn_predict_layers;
  return config;
}

Start start_of(const Settings& settings) {
  const std::string init = settings.text("model.init");
  const bool with_fresh_indexer = settings.flag("model.init_indexer");
  require(!init.empty() || !with_fresh_indexer,
          "model.init_indexer gives a checkpoint an indexer, but model.init names none");
  if (init.empty()) return fresh_start(settings);
  if (with_fresh_indexer) return start_with_indexer(settings, init);
  Start start;
  start.model = open_checkpoint(init);
  start.config =
      as_trained(read_json(std::filesystem::path(init) / "config.json"), start.model.config);
  start.config["num_nextn_predict_layers"] = start.model.weights.mtp.size();
  return start;
}

}  // namespace dsa::train
