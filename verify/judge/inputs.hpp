// verify/judge/inputs.hpp — what a judgement is made from: every file is opened here, once.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/recording.hpp"
#include "verify/judge/options.hpp"
#include "verify/runs/implementation.hpp"
#include "verify/runs/models.hpp"

namespace dsa::verify {

/// A checkpoint directory, opened.
struct Checkpoint {
  Checkpoint(const std::filesystem::path& directory);  // a path may stand for it
  Checkpoint(const std::filesystem::path& directory, const JudgeOptions&);  // and its conventions

  std::filesystem::path path;
  Model stored;  // as the files have it; nothing is decoded
};

/// The judged side: a file, an implementation that is run on the golden's tokens (borrowed), or
/// nothing: the golden itself is judged.
struct Candidate {
  Candidate(std::nullopt_t) {}
  Candidate(const std::filesystem::path& path) : file(path) {}
  Candidate(const std::optional<std::filesystem::path>& path) : file(path) {}
  Candidate(const Implementation& ours) : implementation(&ours) {}

  std::optional<std::filesystem::path> file = std::nullopt;
  const Implementation* implementation = nullptr;
};

struct Inputs {
  Verdict verdict;  // names, sizes and receipt; no judgement yet
  Recording golden;
  std::optional<Recording> candidate;
  ModelPair models;  // at the precision of the judged side

  const Recording& judged() const { return candidate ? *candidate : golden; }
};

/// Bad input is an Error.
Inputs read_inputs(const Checkpoint&, const std::filesystem::path& golden, const Candidate&,
                   const JudgeOptions&);

/// The most keys that any query sees.
Index longest_visible(const std::vector<Sequence>&);

}  // namespace dsa::verify
