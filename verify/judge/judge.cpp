#include "verify/judge/judge.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/checkpoint.hpp"
#include "core/sha256.hpp"
#include "verify/judge/against_definition.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/selection.hpp"
#include "verify/names/name_map.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

namespace fs = std::filesystem;
using reference::Precision;

/// The candidate was computed for the golden's tokens: the same, or the first sequences of it.
void expect_same_tokens(const Recording& golden, const Recording& candidate) {
  require(candidate.sequences.size() <= golden.sequences.size(),
          candidate.path.string() + " holds " + std::to_string(candidate.sequences.size()) +
              " sequences, the golden only " + std::to_string(golden.sequences.size()));
  for (std::size_t b = 0; b < candidate.sequences.size(); ++b) {
    const std::vector<Token>&mine = candidate.sequences[b].tokens,
          &theirs = golden.sequences[b].tokens;
    if (mine == theirs) continue;
    const auto at = std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end());
    throw Error(candidate.path.string() + " was computed for other tokens than " +
                golden.path.string() + ": sequence " + std::to_string(b) + " differs at position " +
                std::to_string(at.first - mine.begin()) + "; run it on the golden's tokens");
  }
}

/// The user's limits, over all rows: MaxText's --max_kl_div, --atol and --rtol.
void add_user_checks(LogitsResult& logits, const std::vector<Tensor<double, 2>>& want,
                     const std::vector<Tensor<double, 2>>& got, const JudgeOptions& options) {
  if (options.max_kl_div) {
    Check check;
    check.allowed = *options.max_kl_div;
    check.from = "the command line (--max-kl-div)";
    for (const RowResult& row : logits.rows) {
      check.add_value(row.kl, *options.max_kl_div, row.at);
      check.over += row.kl == *options.max_kl_div;  // MaxText wants it below the limit
    }
    logits.user.push_back(check);
  }
  if (!options.atol && !options.rtol) return;
  const double atol = options.atol.value_or(0), rtol = options.rtol.value_or(0);
  Check check;
  check.allowed = 1;
  check.from = "the command line (|got-want| <= atol + rtol |want|)";
  for (const RowResult& row : logits.rows) {
    const auto b = static_cast<std::size_t>(row.at.sequence);
    for (Index v = 0; v < want[b].shape()[1]; ++v) {
      const double w = want[b](row.at.position, v);
      const double ratio = in_units_of(atol + rtol * std::abs(w), got[b](row.at.position, v), w);
      check.add_value(ratio, 1, {row.at.sequence, row.at.position, v});
    }
  }
  logits.user.push_back(check);
}

/// Two sides that are both right may differ by as much as each differs from the definition: KL is
/// half a squared distance (of the Fisher metric), so its roots add; allowed errors add as they
/// are.
double sum_of_kl_limits(double a, double b) { return std::pow(std::sqrt(a) + std::sqrt(b), 2); }

/// The first position from which two runs of a sequence decided differently; its size if never.
Index first_difference(const Run& a, const Run& b, Index size) {
  for (const Decision& decision : a.decisions) {
    const Decision* other = b.find(decision.name);
    for (Index t = 0; other != nullptr && t < size; ++t)
      if (sorted_set(decision.chosen.view()[t]) != sorted_set(other->chosen.view()[t])) size = t;
  }
  return size;
}

/// One row of the candidate by the golden. Where either side took other decisions than the
/// definition, the row is judged by the definition alone.
RowResult by_golden(const RowResult& candidate, const RowResult& golden, const LogitsRow& row,
                    const Limits& candidate_limits, const Limits& golden_limits) {
  RowResult r = candidate;
  if (candidate.explained || candidate.undecided || golden.explained || golden.undecided) return r;
  r.kl = std::max(candidate.kl, larger_kl(row.want, row.got));
  if (!(candidate.kl <= candidate.kl_limit)) return r;
  r.kl_limit = sum_of_kl_limits(candidate.kl_limit, golden.kl_limit);
  for (Index v = 0; v < row.want.size(); ++v) {
    const double allowed =
        candidate_limits.logits(row.at.position, v) + golden_limits.logits(row.at.position, v);
    const double ratio = in_units_of(allowed, row.got(v), row.want(v));
    if (ratio > r.worst_over_allowed) r.worst_over_allowed = ratio, r.at.channel = v;
  }
  return r;
}

/// Turns "candidate against the definition" into "against the golden and the definition": metrics
/// of KL(golden || candidate), rows that must satisfy both.
void hold_against_golden(SideResult& candidate_side, const SideResult& golden_side,
                         const Recording& golden, const Recording& candidate) {
  if (!candidate_side.judgement.logits || !golden_side.judgement.logits) return;
  LogitsResult& logits = *candidate_side.judgement.logits;
  const LogitsMetrics by_definition = logits.all;
  const std::vector<RowResult>& golden_rows = golden_side.judgement.logits->rows;
  std::vector<LogitsRow> all, decided;
  Check kl, elements;
  std::vector<Index> same_decisions;  // up to here both sides' replays chose the same
  for (std::size_t b = 0; b < candidate_side.sequences.size(); ++b)
    same_decisions.push_back(first_difference(candidate_side.sequences[b].base,
                                              golden_side.sequences[b].base,
                                              candidate.sequences[b].size()));
  for (std::size_t i = 0; i < logits.rows.size(); ++i) {
    RowResult& r = logits.rows[i];
    const auto b = static_cast<std::size_t>(r.at.sequence);
    const Sequence& s = golden.sequences[b];
    const auto t = static_cast<std::size_t>(r.at.position);
    const bool labelled = t + 1 < s.tokens.size() && s.documents[t + 1] == s.documents[t];
    const LogitsRow row{{r.at.sequence, r.at.position, -1},
                        golden.logits[b].view()[r.at.position],
                        candidate.logits[b].view()[r.at.position],
                        s.tokens[t],
                        labelled ? s.tokens[t + 1] : -1};
    if (r.at.position < same_decisions[b])
      r = by_golden(r, golden_rows[i], row, candidate_side.sequences[b].limits,
                    golden_side.sequences[b].limits);
    all.push_back(row);
    if (r.undecided || r.explained) continue;
    decided.push_back(row);
    kl.add_value(r.kl, r.kl_limit, {r.at.sequence, r.at.position, -1});
    elements.add_value(r.worst_over_allowed, 1, r.at);
  }
  kl.from = logits.kl.from + " of the candidate, plus the golden's";
  elements.from = logits.elements.from + " of the candidate, plus the golden's";
  logits.kl = kl, logits.elements = elements;
  logits.all = measure(all), logits.decided = measure(decided);
  char text[128];
  std::snprintf(text, sizeof text, "by the definition alone: KL mean %.3g max %.3g",
                by_definition.kl_mean, by_definition.kl_max);
  candidate_side.judgement.notes.push_back(text);
}

bool all_in_bf16(const Recording& side) {
  for (const auto& logits : side.logits)
    for (double x : logits)
      if (std::isfinite(x) && round_to(Dtype::bf16, x) != x) return false;
  return !side.logits.empty();
}

void judge_as(Verdict& verdict, const fs::path& checkpoint, const Recording& golden,
              const std::optional<Recording>& candidate, JudgeOptions options) {
  const bool stated = options.precision.has_value();
  const Recording& side = candidate ? *candidate : golden;
  if (!stated) options.precision = precision_of_dtype(side.dtype);
  SideResult result = hold_against_definition(open_models(checkpoint, *options.precision), side,
                                              candidate ? "candidate" : "golden", options);
  std::vector<Tensor<double, 2>> ours;
  for (const SequenceResult& sequence : result.sequences) ours.push_back(sequence.base.logits);
  if (candidate) {
    Recording compared = golden;  // no more sequences than the candidate has
    if (compared.logits.size() > side.logits.size()) compared.logits.resize(side.logits.size());
    const SideResult golden_side = hold_against_definition(
        open_models(checkpoint, precision_of_dtype(golden.dtype)), compared, "golden", options);
    verdict.golden_judged = golden_side.judgement;
    hold_against_golden(result, golden_side, golden, side);
    if (options.explain_limit)
      result.judgement.limits.push_back(
          "by the golden: the roots of both KL limits of a row add, (sqrt a + sqrt b)^2, and so do "
          "the errors allowed of an element");
    result.judgement.title = "candidate (" + std::string(name_of(*options.precision)) +
                             ") against the golden and the definition";
  }
  if (result.judgement.logits && (!candidate || !golden.logits.empty()))
    add_user_checks(*result.judgement.logits, candidate ? golden.logits : side.logits,
                    candidate ? side.logits : ours, options);
  conclude(result.judgement);
  if (result.judgement.outcome == Outcome::fail && !stated &&
      *options.precision != Precision::hf_bf16)
    if (const std::string hint = bf16_hint(checkpoint, side, options); !hint.empty())
      result.judgement.notes.push_back(hint);
  verdict.judged = std::move(result.judgement);
}

void conclude(Verdict& verdict) {
  verdict.outcome = verdict.judged.outcome;
  verdict.why = verdict.judged.why;
  if (verdict.golden_judged && verdict.golden_judged->outcome == Outcome::fail) {
    verdict.outcome = Outcome::fail;
    verdict.why =
        "the golden itself is not what the definition says: " + verdict.golden_judged->why;
  }
  if (verdict.topk > 0 && verdict.longest_visible <= verdict.topk &&
      verdict.outcome == Outcome::pass) {
    verdict.outcome = Outcome::inconclusive;
    verdict.why = "no query sees more than " + std::to_string(verdict.longest_visible) +
                  " keys and the indexer keeps " + std::to_string(verdict.topk) +
                  ": every selection is the same, right or wrong; use a golden longer than top-k";
  }
}

/// The candidate, once the golden is known; none: the golden itself is judged.
using Candidate = std::function<std::optional<Recording>(const Recording&, const Config&)>;

/// `names`: the map that the golden is read through.
Verdict judge_candidate(const fs::path& checkpoint, const fs::path& golden_path,
                        const std::string& names, const Candidate& candidate_of,
                        const JudgeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const MemoryWatch memory;
  Verdict verdict;
  verdict.checkpoint = checkpoint.string();
  verdict.golden = golden_path.string();
  const Config config = open_checkpoint(checkpoint).config;
  if (options.layers) {
    const auto [a, b] = *options.layers;
    require(0 <= a && a < b && b <= config.num_hidden_layers,
            "--layers " + std::to_string(a) + ":" + std::to_string(b) + " is not a span of the " +
                std::to_string(config.num_hidden_layers) + " layers; give A:B with A < B");
  }
  const Recording golden = read_named(golden_path, options.dtype, config, names);
  std::optional<Recording> candidate = candidate_of(golden, config);
  if (candidate) {
    verdict.candidate = candidate->path.string();
    expect_same_tokens(golden, *candidate);
    std::copy_n(golden.sequences.begin(), candidate->sequences.size(),
                candidate->sequences.begin());  // the golden's mask holds for both
  }
  verdict.family = config.model_type;
  verdict.layers = config.num_hidden_layers;
  verdict.topk = config.indexer && config.use_sparse_attention ? config.indexer->topk : 0;
  const std::vector<Sequence>& judged = candidate ? candidate->sequences : golden.sequences;
  verdict.longest_visible = longest_visible(judged);
  verdict.sequences = static_cast<Index>(judged.size());
  for (const Sequence& s : judged)
    verdict.positions += std::count_if(s.documents.begin(), s.documents.end(),
                                       [](Index document) { return document >= 0; });

  judge_as(verdict, checkpoint, golden, candidate, options);
  conclude(verdict);
  verdict.receipt = make_receipt(checkpoint, golden_path, std::nullopt);
  verdict.receipt.seed = options.seed;
  verdict.receipt.runs = options.runs;
  verdict.receipt.alpha = options.alpha;
  verdict.receipt.peak_memory_mib = memory.peak_mib();
  verdict.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return verdict;
}

}  // namespace

std::string bf16_hint(const fs::path& checkpoint, const Recording& side,
                      const JudgeOptions& options) {
  if (all_in_bf16(side))
    return "every logit is a bf16 number: if the run was in bf16, say --precision hf-bf16";
  JudgeOptions again = options;
  again.progress = nullptr;
  again.explain = false;
  const ModelPair models = open_models(checkpoint, Precision::hf_bf16);
  if (!models.in_memory) return {};
  const SideResult bf16 = hold_against_definition(models, side, "candidate", again);
  if (bf16.judgement.outcome == Outcome::fail) return {};
  return "the differences are of the size that bf16 leaves: if the run was in bf16, say "
         "--precision hf-bf16 (an fp32 run this far off is wrong)";
}

Index longest_visible(const std::vector<Sequence>& sequences) {
  Index longest = 0;
  for (const Sequence& s : sequences) {
    std::map<Index, Index> seen;
    for (Index document : s.documents)
      if (document >= 0) longest = std::max(longest, ++seen[document]);
  }
  return longest;
}

Precision precision_of_dtype(const std::string& dtype) {
  if (dtype == "fp64") return Precision::fp64;
  if (dtype == "bf16" || dtype == "f16") return Precision::hf_bf16;
  return Precision::hf_fp32;
}

Verdict judge(const fs::path& checkpoint, const fs::path& golden,
              const std::optional<fs::path>& candidate, const JudgeOptions& options) {
  Verdict verdict = judge_candidate(
      checkpoint, golden, candidate ? "" : options.names,
      [&](const Recording&, const Config& config) -> std::optional<Recording> {
        if (!candidate) return std::nullopt;
        return read_named(*candidate, "", config, options.names);
      },
      options);
  if (candidate) verdict.receipt.candidate_sha256 = sha256_of_file(*candidate);
  return verdict;
}

Verdict judge(const fs::path& checkpoint, const fs::path& golden,
              const Implementation& implementation, const JudgeOptions& options) {
  return judge_candidate(
      checkpoint, golden, options.names,
      [&](const Recording& asked, const Config&) { return answered(implementation, asked); },
      options);
}

}  // namespace dsa::verify
