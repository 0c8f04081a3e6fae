// tests/train/run_support.hpp — short runs of dsa-train's pipeline, and what they leave.
#pragma once

#include <string>
#include <vector>

#include "core/file.hpp"
#include "core/json.hpp"
#include "core/threads.hpp"
#include "optimized/train/pipeline/trainer.hpp"
#include "tests/scratch.hpp"

namespace dsa::test {

/// A model of a few thousand parameters: a stage of each kind, three steps each.
constexpr const char* short_run = R"(
[run]
eval_every = 2
eval_documents = 2
save_every = 0
keep_last = 100
[model]
vocab_size = 160
hidden_size = 16
intermediate_size = 16
moe_intermediate_size = 8
num_hidden_layers = 2
num_attention_heads = 2
q_lora_rank = 12
kv_lora_rank = 8
qk_rope_head_dim = 4
qk_nope_head_dim = 4
v_head_dim = 8
n_routed_experts = 4
index_n_heads = 2
index_head_dim = 8
index_topk = 3
init_std = 0.0
[data]
source = "synthetic:recall"
seq = 40
batch = 2
[task]
keys = 16
values = 16
bucket = 2
[[stage]]
kind = "pretrain"
steps = 3
levels = [2, 3]
level_steps = 2
bias_update_rate = 1e-3
[[stage]]
kind = "warmup"
steps = 3
[[stage]]
kind = "sparse"
steps = 3
accumulation = 2
[[stage]]
kind = "lora"
steps = 3
kl = 0.5
lora_targets = ["o_proj", "indexer.wk"]
[[stage]]
kind = "sft"
steps = 3
)";

inline train::Settings settings_of_short_run(const std::filesystem::path& out,
                                             std::vector<std::string> overrides = {}) {
  overrides.push_back("run.out=" + out.string());
  return train::Settings::parse(short_run, "short.toml", overrides);
}

/// Runs it as one rank of a job; `interrupted_at`: as by Ctrl-C after that step.
inline train::Outcome run_short(ranks::Communicator& ranks, const std::filesystem::path& out,
                                const std::vector<std::string>& overrides, Index interrupted_at) {
  const train::Settings settings = settings_of_short_run(out, overrides);
  const train::Trainer* running = nullptr;
  train::Surroundings around;
  around.interrupted = [&] { return running->state().step == interrupted_at; };
  around.say = [](const std::string&) {};
  around.progress = [](const Json&, Index, Index) {};
  train::Trainer trainer(settings, around, ranks);
  running = &trainer;
  return trainer.run();
}

/// Runs it in one process.
inline train::Outcome run_short(const std::filesystem::path& out,
                                const std::vector<std::string>& overrides = {},
                                Index interrupted_at = -1, int threads = 1) {
  const Threads scope(threads);
  ranks::Communicator alone;
  return run_short(alone, out, overrides, interrupted_at);
}

/// Every byte of the newest checkpoint: weights, moments, cursors.
inline std::string newest_bytes(const std::filesystem::path& out) {
  const auto found = train::checkpoints_of(out / "ckpt");
  require(!found.empty(), "the run left no checkpoint");
  const auto directory = found.rbegin()->second;
  return std::to_string(found.rbegin()->first) + read_text(directory / "config.json") +
         read_text(directory / "model.safetensors") + read_text(directory / "state.safetensors");
}

/// metrics.jsonl without what a clock said.
inline std::vector<Json> metrics_of(const std::filesystem::path& out) {
  std::vector<Json> lines;
  const std::string text = read_text(out / "metrics.jsonl");
  for (std::size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
    Json line = Json::parse(text.substr(begin, text.find('\n', begin) - begin));
    for (const char* key : {"seconds", "tokens_per_s", "gflop_per_s"}) line.erase(key);
    lines.push_back(line);
  }
  return lines;
}

}  // namespace dsa::test
