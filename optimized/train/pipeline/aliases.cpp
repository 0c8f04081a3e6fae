#include "optimized/train/pipeline/aliases.hpp"

#include <algorithm>
#include <map>

#include "core/check.hpp"

namespace dsa::train {
namespace {

/// Names that stand for one key, whose value is taken as it is.
const std::map<std::string, std::string>& same_value() {
  static const std::map<std::string, std::string> names = {
      // MaxText, base.yml
      {"indexer_topk", "model.index_topk"},
      {"indexer_n_heads", "model.index_n_heads"},
      {"indexer_head_dim", "model.index_head_dim"},
      {"indexer_loss_scaling_factor", "stage.kl"},
      {"trainable_parameters_mask", "stage.trained"},
      {"mtp_num_layers", "model.num_nextn_predict_layers"},
      {"mtp_loss_scaling_factor", "stage.mtp"},
      {"load_balance_loss_weight", "stage.balance"},
      {"routed_bias_update_rate", "stage.bias_update_rate"},
      {"steps", "stage.steps"},
      {"max_target_length", "data.seq"},
      {"per_device_batch_size", "data.batch"},
      {"gradient_accumulation_steps", "stage.accumulation"},
      {"gradient_clipping_threshold", "optimizer.clip"},
      {"learning_rate", "stage.lr"},
      {"lr_schedule_type", "stage.schedule"},
      {"warmup_steps_fraction", "stage.warmup"},
      {"learning_rate_final_fraction", "stage.final"},
      {"wsd_decay_steps_fraction", "stage.decay"},
      {"adam_b1", "optimizer.beta1"},
      {"adam_b2", "optimizer.beta2"},
      {"adam_eps", "optimizer.eps"},
      {"adam_weight_decay", "optimizer.weight_decay"},
      {"load_parameters_path", "model.init"},
      {"load_full_state_path", "run.resume"},
      {"checkpoint_period", "run.save_every"},
      {"eval_interval", "run.eval_every"},
      {"ici_context_parallelism", "run.context_ranks"},
      // the HuggingFace fork and its config.json
      {"indexer_kl_coef", "stage.kl"},
      {"index_topk", "model.index_topk"},
      {"index_n_heads", "model.index_n_heads"},
      {"index_head_dim", "model.index_head_dim"},
      {"indexer_loss_scale", "stage.kl"},
      // Megatron-LM
      {"dsa_indexer_topk", "model.index_topk"},
      {"dsa_indexer_n_heads", "model.index_n_heads"},
      {"dsa_indexer_head_dim", "model.index_head_dim"},
      {"dsa_indexer_loss_coeff", "stage.kl"},
      {"context_parallel_size", "run.context_ranks"},
      // xtuner
      {"loss_coeff", "stage.kl"},
      // llm.c
      {"nk", "run.keep_last"},
      {"nm", "run.major_every"},
      // this project's own short forms
      {"seq", "data.seq"},
      {"batch", "data.batch"},
      {"accum", "stage.accumulation"},
      {"clip", "optimizer.clip"},
      {"init", "model.init"},
      {"resume", "run.resume"},
      {"semantics", "semantics.name"},
      {"init_indexer", "model.init_indexer"},
  };
  return names;
}

bool as_bool(const std::string& name, const Json& value, const std::string& where) {
  if (value == Json(1)) return true;
  if (value == Json(0)) return false;
  require(value.is_boolean(),
          where + ": " + name + " is " + value.dump() + ", expected true or false");
  return value.get<bool>();
}

/// Flags with one value that is ours in any case.
std::optional<Meaning> only_ours(const std::string& name, const Json& value,
                                 const std::string& where) {
  static const std::map<std::string, std::pair<std::vector<Json>, std::string>> ours = {
      {"use_indexer", {{true}, "a model of family deepseek_v32 has an indexer"}},
      {"capacity_factor", {{-1, -1.0}, "no token is dropped here"}},
      {"ragged_buffer_factor", {{-1, -1.0}, "no token is dropped here"}},
      {"sparse_matmul", {{true, false}, ""}},
      {"megablox", {{true, false}, ""}},
      {"enable_checkpointing", {{true}, "a run always leaves checkpoints"}},
      {"abort_on_nan_loss", {{true}, "a NaN always ends a run"}},
      {"abort_on_inf_loss", {{true}, "an infinity always ends a run"}},
      {"float32_gate_logits", {{true}, "the router always computes in fp32"}},
      {"packing", {{true}, "documents are always packed, and masked from one another"}},
      {"dsa_kernel_backend", {{"none"}, "there is one backend to train on"}},
      {"dsa_indexer_scoring_relu", {{true}, "the indexer's heads have a ReLU"}},
  };
  const auto at = ours.find(name);
  if (at == ours.end()) return {};
  const auto& [values, why] = at->second;
  require(std::find(values.begin(), values.end(), value) != values.end(),
          where + ": " + name + " is " + value.dump() + ", but " + why + "; leave it out");
  return Meaning{};
}

Meaning stage_of_xtuner(const Json& value, const std::string& where) {
  const std::string word = value.is_string() ? value.get<std::string>() : value.dump();
  require(word == "dense_warmup" || word == "sparse" || word == "warmup",
          where + ": stage is " + word + ", expected dense_warmup or sparse");
  return {{"stage.kind", word == "sparse" ? "sparse" : "warmup"}};
}

}  // namespace

std::optional<Meaning> meaning_of(const std::string& spelled, const Json& value,
                                  const std::string& where) {
  std::string name = spelled;
  std::replace(name.begin(), name.end(), '-', '_');
  if (const auto at = same_value().find(name); at != same_value().end())
    return Meaning{{at->second, value}};
  const auto flag = [&] { return as_bool(name, value, where); };
  if (name == "indexer_sparse_training")
    return Meaning{{"stage.kind", flag() ? "sparse" : "warmup"}};
  if (name == "dsa_indexer_use_sparse_loss") {
    const char* keys = flag() ? "chosen" : "visible";
    return Meaning{{"semantics.teacher_softmax", keys},
                   {"semantics.teacher_keys", keys},
                   {"semantics.student_keys", keys}};
  }
  if (name == "use_sparse_attention" || name == "use_sparse_attn")
    return Meaning{{"stage.attention", flag() ? "sparse" : "dense"}};
  if (name == "detach_indexer_input")
    return Meaning{{"semantics.detach", flag() ? "query_latent" : "nothing"}};
  if (name == "indexer_only")
    return flag() ? Meaning{{"stage.trained", Json::array({"\\.indexer\\."})}} : Meaning{};
  if (name == "use_sft") return flag() ? Meaning{{"stage.kind", "sft"}} : Meaning{};
  if (name == "sft_train_on_completion_only")
    return Meaning{{"stage.loss_on", flag() ? "auto" : "all"}};
  if (name == "y") return Meaning{{"run.resume", flag() ? "auto" : "never"}};
  if (name == "stage") return stage_of_xtuner(value, where);
  return only_ours(name, value, where);
}

}  // namespace dsa::train
