// optimized/run/logits.hpp — logits of given tokens, by a fast backend.
#pragma once

#include <filesystem>
#include <string>

#include "optimized/cpu/format.hpp"
#include "optimized/cpu/mla.hpp"
#include "optimized/cpu/tier.hpp"

namespace dsa::run {

struct LogitsJob {
  std::filesystem::path checkpoint, tokens, out;
  cpu::Format format = cpu::Format::bf16;
  cpu::Cpu cpu;
  cpu::Mla mla = cpu::Mla::automatic;
  Index chunk = 512;
  int threads = 0;   // 0: as many as OpenMP would take
  Index memory = 0;  // bytes that may be used; 0: what is available
  bool trace = false, plan_only = false;
};

/// Writes tokens, attention_mask and logits (and a trace of the first sequence) to `out`:
/// safetensors, or JSON lines where its name ends in .jsonl; data/README.md. Returns lines for the
/// user: what was written, or the plan. Errors leave nothing behind.
std::string logits(const LogitsJob&);

}  // namespace dsa::run
