#include "optimized/train/pipeline/keys.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.hpp"
#include "core/kl_semantics.hpp"
#include "core/words.hpp"

namespace dsa::train {
namespace {

using Kind = Key::Kind;
constexpr double infinite = std::numeric_limits<double>::infinity();
constexpr double most_count = 1e12;

Key integer(const char* name, Json fallback, double low, const char* about) {
  return {name, Kind::integer, std::move(fallback), about, low, most_count};
}
Key number(const char* name, Json fallback, double low, double high, const char* about) {
  return {name, Kind::number, std::move(fallback), about, low, high};
}
Key boolean(const char* name, bool fallback, const char* about) {
  return {name, Kind::boolean, fallback, about};
}
Key text(const char* name, Json fallback, const char* about) {
  return {name, Kind::text, std::move(fallback), about};
}
Key word(const char* name, Json fallback, std::vector<std::string> words, const char* about) {
  return {name, Kind::word, std::move(fallback), about, -infinite, infinite, std::move(words)};
}
Key list(Kind kind, const char* name, Json fallback, const char* about) {
  return {name, kind, std::move(fallback), about, 0, infinite};
}
Key free(Key key) {
  key.changes_numbers = false;
  return key;
}

std::vector<Key> run_keys() {
  return {
      free(text("run.out", "out/train", "directory of the run")),
      free(text("run.resume", "auto",
                "auto: the newest checkpoint of run.out, if there is one; "
                "never; a step; or the path of a checkpoint")),
      free(boolean("run.allow_change", false, "resume although the configuration differs")),
      free(integer("run.steps", 0, 0, "stop after so many steps of the whole run; 0: all")),
      free(integer("run.save_every", 100, 0, "steps between checkpoints; 0: at stage ends only")),
      free(integer("run.keep_last", 2, 1, "checkpoints that are kept")),
      free(integer("run.major_every", 0, 0, "checkpoints at multiples of it are kept for good")),
      free(integer("run.threads", 0, 0,
                   "threads of a rank; 0: its share of the cores. No result depends on it")),
      free(integer("run.rank_timeout", 600, 1,
                   "seconds that ranks wait for one that is silent; then the job ends")),
      integer("run.context_ranks", 1, 1,
              "ranks that hold a micro-batch together, each some of its rows; divides the job's"),
      word("run.context_rows", "zigzag", {"zigzag", "contiguous"},
           "which rows each has: an early and a late run, or one run"),
      integer("run.seed", 0, 0, "of fresh parameters and of the data's order"),
      integer("run.eval_every", 100, 0, "steps between evaluations; 0: at stage ends only"),
      integer("run.eval_documents", 32, 0, "held-out documents of an evaluation, a source"),
  };
}

std::vector<Key> model_keys() {
  return {
      text("model.init", "", "checkpoint to begin with; empty: a fresh model of the sizes below"),
      boolean("model.init_indexer", false, "give model.init, a dense checkpoint, a fresh indexer"),
      number("model.init_std", 0.02, 0, 10, "standard deviation of fresh matrices (V3: 0.006)"),
      word("model.compute", "fp32", {"fp32", "bf16"}, "format of the factors of products"),
      word("model.family", "deepseek_v32",
           {"deepseek_v2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa"}, "model_type"),
      integer("model.vocab_size", 256, 1, "V"),
      integer("model.hidden_size", 128, 1, "C"),
      integer("model.intermediate_size", 256, 1, "F of a dense layer"),
      integer("model.moe_intermediate_size", 64, 1, "F of an expert"),
      integer("model.num_hidden_layers", 2, 1, "L"),
      integer("model.first_k_dense_replace", 1, 0, "layers without experts"),
      integer("model.num_attention_heads", 4, 1, "N"),
      integer("model.q_lora_rank", 64, 1, "A"),
      integer("model.kv_lora_rank", 32, 1, "R"),
      integer("model.qk_rope_head_dim", 16, 2, "P"),
      integer("model.qk_nope_head_dim", 16, 1, "B"),
      integer("model.v_head_dim", 32, 1, "U"),
      integer("model.n_routed_experts", 4, 1, "E"),
      integer("model.n_shared_experts", 1, 0, "experts that every token passes"),
      integer("model.num_experts_per_tok", 2, 1, "experts a token"),
      integer("model.n_group", 1, 1, "G"),
      integer("model.topk_group", 1, 1, "groups a token"),
      number("model.routed_scaling_factor", 1, 1e-9, 1e9, "factor of the routed experts"),
      integer("model.index_n_heads", 4, 1, "H"),
      integer("model.index_head_dim", 32, 1, "D"),
      integer("model.index_topk", 64, 1, "K"),
      integer("model.num_nextn_predict_layers", 0, 0, "multi-token-prediction blocks"),
      number("model.rope_theta", 10000, 1, 1e12, "base of the rotary frequencies"),
      number("model.rms_norm_eps", 1e-6, 1e-30, 1, "eps of the norms"),
      boolean("model.tie_word_embeddings", false, "the head is the embedding"),
      integer("model.max_position_embeddings", 4096, 1, "longest context"),
  };
}

std::vector<Key> data_keys() {
  return {
      list(Kind::texts, "data.source", Json::array(),
           "synthetic:copy|recall|needle|lookup, text:GLOB, jsonl:GLOB, chat:GLOB, bin:GLOB"),
      list(Kind::numbers, "data.weights", Json::array(), "a source's share of documents; equal"),
      text("data.tokenizer", "bytes", "bytes, or the directory of a tokenizer.json"),
      word("data.chat", "auto", {"auto", "plain", "v3.1", "v3.2"},
           "how messages become text; auto: as the tokenizer's checkpoint says, plain for bytes"),
      integer("data.seq", 512, 2, "S, tokens of a row; documents are packed into rows"),
      integer("data.batch", 8, 1, "rows a step"),
      integer("data.separator", -1, -1, "bin: the token that begins a document; -1: none"),
      integer("task.keys", 64, 2, "synthetic: different keys"),
      integer("task.values", 64, 2, "synthetic: different values"),
      integer("task.value_length", 1, 1, "synthetic: values a key has"),
      integer("task.queries", 0, 0, "synthetic: questions of a training document; 0: a pair each"),
      integer("task.distractors", 0, 0, "needle, lookup: pairs that are never asked for"),
      integer("task.length", 0, 0, "needle, lookup: tokens of a document; 0: data.seq"),
      integer("task.bucket", 8, 1, "synthetic: distances of one class lie together"),
      integer("task.held_out", 4, 2, "synthetic: every so-many-th class is left to evaluation"),
  };
}

std::vector<Key> optimizer_keys() {
  return {
      number("optimizer.beta1", 0.9, 0, 1, "decay of the first moment"),
      number("optimizer.beta2", 0.95, 0, 1, "decay of the second moment"),
      number("optimizer.eps", 1e-8, 0, infinite, "added to the root"),
      boolean("optimizer.eps_inside_root", false, "m / sqrt(v + eps)"),
      boolean("optimizer.bias_correction", true, "of both moments"),
      number("optimizer.weight_decay", 0.1, 0, infinite, "of matrices"),
      boolean("optimizer.decoupled", true, "the decay is no gradient"),
      word("optimizer.decayed", "matrices", {"matrices", "all"}, "what is decayed"),
      number("optimizer.clip", 1, 0, infinite, "largest norm of the gradient; 0: any"),
      number("optimizer.clip_eps", 1e-6, 0, infinite, "added to the norm"),
  };
}

std::vector<Key> semantics_keys() {
  const std::vector<std::string> keys = {"as named", "chosen", "visible"},
                                 reductions = {"as named", "mean", "sum"},
                                 flags = {"as named", "true", "false"};
  std::vector<Key> all = {word("semantics.name", "paper",
                               {"paper", "maxtext", "megatron", "hf-fork", "prime-rl", "xtuner"},
                               "whose reading of the indexer's loss")};
  for (const char* key : {"teacher_softmax", "teacher_keys", "student_keys"})
    all.push_back(word((std::string("semantics.") + key).c_str(), "as named", keys, "of the KL"));
  for (const char* key : {"student_scaled", "padding_counted"})
    all.push_back(word((std::string("semantics.") + key).c_str(), "as named", flags, "of the KL"));
  for (const char* key : {"tokens", "layers"})
    all.push_back(
        word((std::string("semantics.") + key).c_str(), "as named", reductions, "reduction"));
  for (const char* key :
       {"l1_added", "l1_least", "log_p_added", "log_p_least", "log_q_added", "log_q_least"})
    all.push_back(number((std::string("semantics.") + key).c_str(), -1, -1, infinite,
                         "guard against log 0; -1: as named"));
  all.push_back(word("semantics.detach", "as named",
                     {"as named", "inputs", "query_latent", "nothing"},
                     "what of the indexer's input is a constant"));
  return all;
}

std::vector<Key> stage_keys() {
  return {
      word("stage.kind", "sparse", {"pretrain", "warmup", "sparse", "sft", "lora"},
           "a set of defaults for the keys below"),
      text("stage.name", "", "for logs and overrides; empty: the kind"),
      integer("stage.steps", 20, 1, "steps of the optimiser"),
      number("stage.lr", Json{{"warmup", 1e-3}, {"sft", 1e-4}, {"", 3e-4}}, 0, 1e3,
             "largest learning rate"),
      word("stage.schedule", "constant", {"constant", "cosine", "wsd"},
           "of the rate, after its warm-up"),
      number("stage.warmup", 0, 0, most_count, "steps of the rate's warm-up; below 1: a share"),
      number("stage.final", 0, 0, 1, "cosine, wsd: the last rate, as a share of lr"),
      number("stage.decay", 0.1, 0, most_count, "wsd: the last steps; below 1: a share"),
      word("stage.attention", Json{{"pretrain", "dense"}, {"warmup", "dense"}, {"", "sparse"}},
           {"dense", "sparse"}, "of the main model"),
      number("stage.lm", Json{{"warmup", 0}, {"", 1}}, 0, infinite,
             "coefficient of the language-model loss"),
      number("stage.kl", Json{{"warmup", 1}, {"sparse", 0.01}, {"", 0}}, 0, infinite,
             "coefficient of the indexer's loss (indexer_loss_scale)"),
      number("stage.mtp", 0, 0, infinite, "coefficient of multi-token prediction"),
      number("stage.balance", 0, 0, infinite, "coefficient of the sequence-wise balance loss"),
      number("stage.bias_update_rate", 0, 0, infinite, "gamma of the router's correction bias"),
      list(Kind::texts, "stage.trained", Json::array(),
           "regular expressions of the parameters trained; empty: what the kind trains"),
      integer("stage.accumulation", 1, 1, "parts a step's rows are cut into"),
      integer("stage.batch", 0, 0, "rows a step; 0: data.batch"),
      integer("stage.seq", 0, 0, "tokens of a row; 0: data.seq"),
      list(Kind::texts, "stage.source", Json::array(), "as data.source; empty: that"),
      list(Kind::numbers, "stage.weights", Json::array(),
           "as data.weights; empty: that, or equal ones of stage.source"),
      word("stage.loss_on", "auto", {"auto", "all"},
           "targets of the language-model loss; auto: answers, where a document has some"),
      list(Kind::integers, "stage.levels", Json::array({1}),
           "synthetic: pairs of a document (copy: tokens), from easy to hard"),
      number("stage.advance_at", 0, 0, 1, "accuracy at which the level rises; 0: by level_steps"),
      integer("stage.level_steps", 0, 0, "steps after which the level rises at the latest; 0: no"),
      number("stage.until_accuracy", 0, 0, 1,
             "the stage ends as soon as its last level is answered so well; a stage that never "
             "reaches it ends the run; 0: no"),
      list(Kind::texts, "stage.lora_targets", Json::array(),
           "lora: regular expressions of the matrices that get adapters"),
      integer("stage.lora_r", 8, 1, "lora: rank"),
      number("stage.lora_alpha", 16, 0, infinite, "lora: the adapter's factor times its rank"),
  };
}

/// Levenshtein's distance.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::string found(const Json& value) {
  if (value.is_number_float() && !std::isfinite(value.get<double>()))
    return std::isnan(value.get<double>()) ? "NaN" : "infinite";
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool in_range(const Key& key, const Json& value) {
  const double x = value.get<double>();
  return std::isfinite(x) && key.low <= x && x <= key.high;
}

bool all_are(const Json& list, bool (Json::*is)() const noexcept) {
  return list.is_array() &&
         std::all_of(list.begin(), list.end(), [&](const Json& x) { return (x.*is)(); });
}

bool is_value_of(const Key& key, const Json& value) {
  switch (key.kind) {
    case Kind::integer:
      return value.is_number_integer() && in_range(key, value);
    case Kind::number:
      return value.is_number() && in_range(key, value);
    case Kind::boolean:
      return value.is_boolean();
    case Kind::text:
      return value.is_string();
    case Kind::word:
      return value.is_string() && std::find(key.words.begin(), key.words.end(),
                                            value.get<std::string>()) != key.words.end();
    case Kind::texts:
      return all_are(value, &Json::is_string);
    case Kind::integers:
      return all_are(value, &Json::is_number_integer) &&
             std::all_of(value.begin(), value.end(),
                         [&](const Json& x) { return in_range(key, x); });
    case Kind::numbers:
      return all_are(value, &Json::is_number) &&
             std::all_of(value.begin(), value.end(),
                         [&](const Json& x) { return in_range(key, x); });
  }
  return false;
}

}  // namespace

const std::vector<Key>& all_keys() {
  static const std::vector<Key> keys = [] {
    std::vector<Key> all;
    for (const auto& part :
         {run_keys(), model_keys(), data_keys(), optimizer_keys(), semantics_keys(), stage_keys()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return keys;
}

const Key* find_key(std::string_view name) {
  const auto at = std::find_if(all_keys().begin(), all_keys().end(),
                               [&](const Key& key) { return key.name == name; });
  return at == all_keys().end() ? nullptr : &*at;
}

std::string nearest_key(std::string_view name) {
  return std::min_element(all_keys().begin(), all_keys().end(),
                          [&](const Key& a, const Key& b) {
                            return distance(a.name, name) < distance(b.name, name);
                          })
      ->name;
}

std::string expected_of(const Key& key) {
  const auto range = [&](const std::string& noun) {
    if (std::isinf(key.high) && key.low == 0) return noun + ", 0 or more";
    if (std::isinf(key.high)) return noun + fmt::format(", {} or more", key.low);
    return noun + fmt::format(" from {} to {}", key.low, key.high);
  };
  switch (key.kind) {
    case Kind::integer:
      return range("an integer");
    case Kind::number:
      return range("a finite number");
    case Kind::boolean:
      return "true or false";
    case Kind::text:
      return "a text";
    case Kind::word:
      return alternatives(key.words);
    case Kind::texts:
      return "a list of texts";
    case Kind::integers:
      return "a list of integers, none below 0";
    case Kind::numbers:
      return "a list of finite numbers, none below 0";
  }
  return "";
}

Json checked(const Key& key, const Json& value, const std::string& where) {
  const bool is_list =
      key.kind == Kind::texts || key.kind == Kind::integers || key.kind == Kind::numbers;
  const Json seen = is_list && !value.is_array() ? Json::array({value}) : value;
  require(is_value_of(key, seen),
          where + ": " + key.name + " is " + found(value) + ", expected " + expected_of(key));
  return key.kind == Kind::number ? Json(seen.get<double>()) : seen;
}

Json fallback_of(const Key& key, const std::string& stage_kind) {
  Json value = key.fallback;
  if (value.is_object()) value = value.contains(stage_kind) ? value[stage_kind] : value[""];
  return checked(key, value, "the default");
}

}  // namespace dsa::train
