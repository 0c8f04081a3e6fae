// verify/invariants/invariants.hpp — what holds for every right implementation, whatever its
// weights.
//
// Metamorphic checks: an implementation is asked the same thing in two ways and compared with
// itself, so that no golden is needed. Where both ways are the same sums in the same order the
// answers must be the same bits; where they are not, the limits come from perturbed runs of the
// definition (verify/limits/noise.hpp), doubled because both sides are rounded, and a row that
// depends on a decision within the noise is told as undecided. docs/invariants.md lists them.
#pragma once

#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/judge/judge.hpp"
#include "verify/runs/implementation.hpp"

namespace dsa::verify {

enum class Held { pass, fail, undecided, not_applicable, not_possible };
std::string name_of(Held);  // "pass", "fail", "undecided", "not applicable", "not possible"

struct Invariant {
  std::string name;      // "causality"
  std::string sentence;  // what must hold, and why
  Held held = Held::not_applicable;
  double value = 0, limit = 0;
  std::string from = {};  // where the limit comes from
  std::string at = {};    // where value / limit is largest
  Index n = 0;            // rows (of logits, of a tensor, of a decision) compared
  std::string note = {};  // what was tried, what is undecided, or why it was not asked
};

struct Invariants {
  std::string checkpoint, implementation, precision;
  Index length = 0, topk = 0;  // tokens of the main sequence; 0: no indexer
  std::vector<Invariant> invariants = {};
  Outcome outcome = Outcome::inconclusive;
  std::string why = {};
  Receipt receipt = {};
};

struct InvariantOptions {
  JudgeOptions judge;  // precision, runs, seed, alpha
  Index length = 0;    // of the main sequence; 0: default_length
};

/// More than twice top-k, so that there is something to choose and something beyond it; between 48
/// and 256.
Index default_length(const Config&);

/// Error: bad input, or a command that fails.
Invariants check_invariants(const std::filesystem::path& checkpoint, const Implementation&,
                            const InvariantOptions&);

std::string table(const Invariants&, bool colour);
Json to_json(const Invariants&);

}  // namespace dsa::verify
