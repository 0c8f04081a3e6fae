// run/logits.hpp — logits of given tokens, by a fast backend.
#pragma once

#include <filesystem>
#include <string>

#include "cli/progress.hpp"
#include "optimized/engine/engine.hpp"

namespace dsa::run {

struct LogitsJob {
  std::filesystem::path checkpoint, tokens, out;
  bool trace = false, plan_only = false;
  cli::Progress progress = {};
};

/// Writes tokens, attention_mask and logits (and a trace of the first sequence) to `out`:
/// safetensors, or JSON lines where its name ends in .jsonl; data/README.md. Returns lines for the
/// user: what was written, or the plan. Errors leave nothing behind.
std::string logits(const LogitsJob&, EngineOptions);

}  // namespace dsa::run
