// verify/diagnose/diagnose.hpp — which known defect explains somebody's output.
//
// The reference is run with every known defect in turn (verify/defects/). The variants are ranked
// by what remains of the difference; the best are held against the candidate like the definition
// itself, with limits measured on the broken model: a defect explains the candidate if nothing is
// left beyond its noise, and if that is evidence: under some variants almost any candidate would
// pass (verify/diagnose/evidence.hpp). Where no variant does, the constants of the nearest defects
// are fitted, and then pairs are tried.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/judge/judge.hpp"
#include "verify/runs/models.hpp"

namespace dsa::verify {

/// One variant of one defect, or of two together.
struct Ranked {
  std::vector<int> numbers;           // of the defects
  std::string name, variant;          // "indexer-rope-interleaved", "eps=1e-05"
  std::string sentence, link, first;  // of the first defect
  double distance = 0;                // what remains: mean KL, and with a trace the sum of NMSE
  double kl_max_after = 0;            // NaN without logits
  bool tried = false;                 // held against the candidate
  bool explained = false;             // nothing is left beyond the noise, and that is evidence
  bool convention = false;            // right in other implementations
  Index differing = 0, open = 0;      // verify/diagnose/evidence.hpp, where nothing is left
  std::string no_evidence;            // why that is no evidence
};

struct Diagnosis {
  std::string checkpoint, candidate, precision;
  std::string conclusion;  // "correct", "defect", "convention", "precision" or "unknown"
  std::string why;
  std::vector<int> defects;
  std::string computed_in;            // "precision": "hf-tf32"
  std::vector<int> also;              // other numbers that explain the candidate as well
  std::vector<std::string> suspects;  // where no defect is named: the fewest ops that depart
  std::vector<Ranked> ranking;        // explained ones first, then by what remains
  Judgement plain;                    // the candidate against the definition as it is
  double kl_max_before = 0, distance_before = 0;
  Index variants = 0;  // how many were run
  Receipt receipt;
};

/// Error: bad input. `options.precision`: how the candidate was computed.
Diagnosis diagnose(const std::filesystem::path& checkpoint, const std::filesystem::path& candidate,
                   const JudgeOptions&);

/// The same for a candidate in memory; `models` as its precision loads them. No receipt.
Diagnosis diagnose(const ModelPair&, const Recording& candidate, const JudgeOptions&);

std::string table(const Diagnosis&, bool colour);
Json to_json(const Diagnosis&);
std::string to_html(const Diagnosis&);

/// 0 correct, 1 a defect or unknown, 3 nothing could be decided.
int exit_code(const Diagnosis&);

}  // namespace dsa::verify
