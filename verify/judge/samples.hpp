// verify/judge/samples.hpp — every golden under a directory of samples, judged in turn.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "verify/judge/judge.hpp"

namespace dsa::verify {

/// One judgement to make.
struct Sample {
  std::filesystem::path checkpoint, golden;
  std::string dtype;  // the column; empty where there is one only
};

/// DIR/NAME/checkpoint with DIR/NAME/*.safetensors and *.jsonl, every logits column of each, in
/// alphabetical order. Error: DIR holds no sample.
std::vector<Sample> find_samples(const std::filesystem::path& directory);

/// Pass: nothing fails, and every checkpoint has a golden that passes. A golden that cannot decide
/// by itself (exact ties without a trace, bf16 of a chaotic model) is listed as inconclusive.
Outcome outcome_of_samples(const std::vector<Verdict>&);

}  // namespace dsa::verify
