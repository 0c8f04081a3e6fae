// verify/verdict.hpp — what the judge found: the nouns that every report prints.
//
// Filled by verify/judge/judge.hpp, printed by verify/report/report.hpp. docs/report.md describes
// the JSON form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.hpp"
#include "verify/measure/check.hpp"

namespace dsa::verify {

enum class Outcome { pass, fail, inconclusive };  // exit codes 0, 1, 3
std::string_view name_of(Outcome);                // "pass", "fail", "inconclusive"

/// Statistics of two sets of logits, `want` (the golden) and `got`, over some rows.
struct LogitsMetrics {
  Index rows = 0;
  Index wrong_kind = 0;  // elements where one side is NaN or an infinity that the other is not
  double max_abs = 0, max_rel = 0;
  Place max_abs_at, max_rel_at;
  double nmse = 0;                 // sum (got-want)^2 / sum (want-mean)^2
  double kl_mean = 0, kl_max = 0;  // KL(want || got) of a row, nats
  Place kl_max_at;
  Index kl_max_token = -1;  // token id at kl_max_at
  double top1 = 0;          // share of rows with the same largest logit
  double top10_overlap = 0, jaccard = 0, rank_agreement = 0;  // MaxText's three, means over rows
  std::optional<double> perplexity_want, perplexity_got;      // of the next token
};

/// One row of logits.
struct RowResult {
  Place at;
  double kl = 0, kl_limit = 0;    // the larger of both directions
  double worst_over_allowed = 0;  // largest |got-want| / allowed of the row
  bool explained = false;   // beyond the limit until decisions within the noise were replayed:
  double kl_explained = 0;  // what remained
  bool undecided = false;
  std::string decision;   // undecided: the first decision that may flip, by its trace name
  Index decided_at = -1;  // its position in the sequence
  double margin = 0;      // how far apart the scores at its boundary lie
  double noise = 0;       // how far apart they may lie and still be swapped by rounding
  bool decided() const { return !undecided && !explained; }
  bool agrees() const { return kl <= kl_limit && worst_over_allowed <= 1; }
};

/// A decision that was flipped to explain rows: rounding may have flipped it.
struct FlipResult {
  Index sequence = -1, layer = -1, position = -1;
  std::string decision;              // trace name
  std::vector<Index> without, with;  // keys (experts, groups) given up, and taken instead
  double margin = 0, noise = 0;      // the gap that was flipped, and the gap rounding may flip
};

struct LogitsResult {
  LogitsMetrics decided;  // over decided rows only: neither explained nor undecided
  LogitsMetrics all;
  Check kl;                 // decided rows: the row with the largest kl / limit
  Check elements;           // decided rows: elementwise, in units of the allowed error (limit 1)
  Check together;           // undecided rows: their mean KL, and the limit that free runs set it
  std::vector<Check> user;  // --max-kl-div, --atol/--rtol, over all rows
  std::vector<RowResult> rows;
  std::vector<FlipResult> flips;  // decisions replayed to explain rows
  double flips_expected = 0;      // how many a correct run of this precision flips: mean,
  double flips_most = 0;          // and the most at alpha; more are not explained
  bool too_many_flips() const { return static_cast<double>(flips.size()) > flips_most; }
  Index undecided() const;
  Index explained() const;
};

/// A traced tensor, element by element, or a traced decision, row by row: `over` then counts rows
/// that nothing explains.
struct TensorResult : Check {
  enum class Kind { tensor, selection, routing };
  std::string name;  // HuggingFace module path
  Kind kind = Kind::tensor;
  Index agreeing = 0;   // decisions: rows equal as sets
  Index explained = 0;  // decisions: rows that differ within the noise, and were replayed
  std::vector<double> agreement_by_position;  // selections: |both| / |either|, a value a row
};

/// One side held against the definition (and, for a candidate, against the golden).
struct Judgement {
  std::string title;      // "golden (fp64) against the definition"
  std::string precision;  // "hf-fp32": how the judged side was computed
  Outcome outcome = Outcome::inconclusive;
  std::string why;  // one sentence
  std::optional<LogitsResult> logits;
  std::vector<TensorResult> tensors;           // in order of execution
  std::vector<std::string> notes;              // e.g. what the emulated precision explains
  std::vector<std::string> limits;             // if asked: what they are made of, line by line
  std::optional<std::string> first_departure;  // the first tensor that is not ok
};

/// How the perturbed runs are drawn, from which limits come.
struct Draws {
  int runs = 16;  // of each kind
  std::uint64_t seed = 1;
  double alpha = 1e-3;  // probability of rejecting a right result, over all checks of a judgement
};

/// What produced this result.
struct Receipt {
  std::string command;  // the command line, paths as the user gave them
  std::string version;  // of dsa
  std::string commit;   // "9ab12c0", or "9ab12c0 + uncommitted changes"
  std::string compiler, flags;
  std::string device;  // processor model
  std::string kernel;  // "avx512": which build of the double matrix product
  std::string checkpoint_sha256, golden_sha256, candidate_sha256;
  Draws draws = {0, 0, 0};  // no runs: nothing was judged by limits of theirs
  double seconds = 0;
  double peak_memory_mib = 0;  // anonymous memory, without the page cache
};

/// The verdict on one golden, or on one candidate by one golden.
struct Verdict {
  std::string checkpoint, golden, candidate;  // as the user named them; candidate may be empty
  std::string family;
  Index sequences = 0, positions = 0, layers = 0, topk = 0, longest_visible = 0;
  std::pair<Index, Index> span;          // layers [A, B) that were judged
  std::vector<std::string> unused_keys;  // of config.json, that nothing depends on
  Outcome outcome = Outcome::inconclusive;
  std::string why;
  /// What was asked for last: the candidate if there is one, else the golden.
  Judgement judged;
  /// The golden itself against the definition, where a candidate was judged.
  std::optional<Judgement> golden_judged;
  Receipt receipt;
};

/// The worst of several: fail, then inconclusive, then pass.
Outcome worst_of(const std::vector<Verdict>&);

}  // namespace dsa::verify
