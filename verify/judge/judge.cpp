#include "verify/judge/judge.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "verify/judge/against_golden.hpp"
#include "verify/judge/conclude.hpp"
#include "verify/judge/precision_of.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// KL of every row against MaxText's --max_kl_div, which it has to stay below.
Check user_kl(const LogitsResult& logits, double limit) {
  Check check;
  check.allowed = limit;
  check.from = "the command line (--max-kl-div)";
  for (const RowResult& row : logits.rows) {
    check.add_value(row.kl, limit, row.at);
    check.over += row.kl == limit;
  }
  return check;
}

/// Every element against --atol and --rtol.
Check user_elements(const LogitsResult& logits, const std::vector<Tensor<double, 2>>& want,
                    const std::vector<Tensor<double, 2>>& got, double atol, double rtol) {
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
  return check;
}

void add_user_checks(LogitsResult& logits, const std::vector<Tensor<double, 2>>& want,
                     const std::vector<Tensor<double, 2>>& got, const JudgeOptions& options) {
  if (options.max_kl_div) logits.user.push_back(user_kl(logits, *options.max_kl_div));
  if (options.atol || options.rtol)
    logits.user.push_back(
        user_elements(logits, want, got, options.atol.value_or(0), options.rtol.value_or(0)));
}

bool all_in_bf16(const Recording& side) {
  for (const auto& logits : side.logits)
    for (double x : logits)
      if (std::isfinite(x) && round_to(Dtype::bf16, x) != x) return false;
  return !side.logits.empty();
}

/// The golden alone, by the definition.
Judgement judge_golden(const Inputs& in, const JudgeOptions& options) {
  SideResult side = hold(in.models, in.golden, "golden", options);
  Judgement judgement = std::move(side.judgement);
  if (judgement.logits) {
    std::vector<Tensor<double, 2>> ours;
    for (const SequenceResult& sequence : side.sequences) ours.push_back(sequence.base.logits);
    add_user_checks(*judgement.logits, in.golden.logits, ours, options);
  }
  return judgement;
}

/// The candidate by the definition and by the golden, which is held against the definition itself.
Judgement judge_candidate(const Inputs& in, const JudgeOptions& options, Judgement& golden_judged) {
  const Recording& candidate = *in.candidate;
  SideResult mine = hold(in.models, candidate, "candidate", options);
  Recording golden = in.golden;  // no more sequences than the candidate has
  if (golden.logits.size() > candidate.logits.size()) golden.logits.resize(candidate.logits.size());
  const SideResult theirs = hold(in.models.in(precision_of(golden)), golden, "golden", options);
  golden_judged = theirs.judgement;
  Judgement judgement = mine.judgement;
  judgement.title =
      fmt::format("candidate ({}) against the golden and the definition", judgement.precision);
  if (judgement.logits && theirs.judgement.logits) {
    judgement.logits = by_golden({candidate, mine}, {in.golden, theirs});
    judgement.notes.push_back(fmt::format("by the definition alone: KL mean {:.3g} max {:.3g}",
                                          mine.judgement.logits->all.kl_mean,
                                          mine.judgement.logits->all.kl_max));
  }
  if (options.explain_limit)
    judgement.limits.push_back(
        "by the golden: the roots of both KL limits of a row add, (sqrt a + sqrt b)^2, and so do "
        "the errors allowed of an element");
  if (judgement.logits && !in.golden.logits.empty())
    add_user_checks(*judgement.logits, in.golden.logits, candidate.logits, options);
  return judgement;
}

}  // namespace

std::string bf16_hint(const ModelPair& models, const Recording& side, const JudgeOptions& options) {
  if (all_in_bf16(side))
    return "every logit is a bf16 number: if the run was in bf16, say --precision hf-bf16";
  if (!models.in_memory) return {};
  JudgeOptions again = options;
  again.progress = nullptr;
  again.explain = false;
  const SideResult bf16 =
      hold_against_definition(models.in(Precision::hf_bf16), side, "candidate", again);
  if (bf16.judgement.outcome == Outcome::fail) return {};
  return "the differences are of the size that bf16 leaves: if the run was in bf16, say "
         "--precision hf-bf16 (an fp32 run this far off is wrong)";
}

Verdict judge(const Inputs& in, const JudgeOptions& options) {
  Verdict verdict = in.verdict;
  if (in.candidate)
    verdict.judged = judge_candidate(in, options, verdict.golden_judged.emplace());
  else
    verdict.judged = judge_golden(in, options);
  conclude(verdict.judged);
  if (verdict.golden_judged) conclude(*verdict.golden_judged);
  conclude(verdict);
  if (verdict.judged.outcome == Outcome::fail && !options.precision &&
      in.models.precision != Precision::hf_bf16)
    if (const std::string hint = bf16_hint(in.models, in.judged(), options); !hint.empty())
      verdict.judged.notes.push_back(hint);
  if (options.remarks)
    for (std::string& remark : options.remarks(in.golden))
      verdict.judged.notes.push_back(std::move(remark));
  return verdict;
}

Verdict judge(const Checkpoint& checkpoint, const std::filesystem::path& golden,
              const Candidate& candidate, const JudgeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const MemoryWatch memory;
  Verdict verdict = judge(read_inputs(checkpoint, golden, candidate, options), options);
  verdict.receipt.peak_memory_mib = memory.peak_mib();
  verdict.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return verdict;
}

}  // namespace dsa::verify
