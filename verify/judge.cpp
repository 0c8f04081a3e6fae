#include "verify/judge.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/checkpoint.hpp"
#include "core/sha256.hpp"
#include "verify/divergence.hpp"
#include "verify/receipt.hpp"
#include "verify/side.hpp"

namespace dsa::verify {
namespace {

namespace fs = std::filesystem;
using reference::Precision;

Models open_models(const fs::path& directory, Precision precision) {
  Models models;
  const Model stored = open_checkpoint(directory);
  models.definition = resident(stored, resident_limit_bytes);
  models.loaded = reference::loaded_as(stored, precision);
  // The official pipeline multiplies FP8 bytes as they are stored.
  if (precision != Precision::official_fp8)
    models.loaded = resident(std::move(models.loaded), resident_limit_bytes);
  models.in_memory = models.definition.weights.embed_tokens.dtype == Dtype::f64;
  return models;
}

/// The candidate was computed for the golden's tokens: the same, or the first sequences of it.
void expect_same_tokens(const Golden& golden, const Golden& candidate) {
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

Index longest_visible(const std::vector<Sequence>& sequences) {
  Index longest = 0;
  for (const Sequence& s : sequences) {
    std::map<Index, Index> seen;
    for (Index document : s.documents)
      if (document >= 0) longest = std::max(longest, ++seen[document]);
  }
  return longest;
}

/// The user's limits, over all rows: MaxText's --max_kl_div, --atol and --rtol.
void add_user_checks(LogitsResult& logits, const std::vector<Tensor<double, 2>>& want,
                     const std::vector<Tensor<double, 2>>& got, const JudgeOptions& options) {
  if (options.max_kl_div) {
    Check check;
    check.limit = *options.max_kl_div;
    check.from = "the command line (--max-kl-div)";
    for (const RowResult& row : logits.rows) {
      ++check.n;
      if (!(row.kl < *options.max_kl_div)) ++check.over;
      if (check.n == 1 || !(row.kl <= check.value)) check.value = row.kl, check.at = row.at;
    }
    logits.user.push_back(check);
  }
  if (!options.atol && !options.rtol) return;
  const double atol = options.atol.value_or(0), rtol = options.rtol.value_or(0);
  Check check;
  check.limit = 1;
  check.from = "the command line (|got-want| <= atol + rtol |want|)";
  for (const RowResult& row : logits.rows) {
    const auto b = static_cast<std::size_t>(row.at.sequence);
    for (Index v = 0; v < want[b].shape()[1]; ++v) {
      const double w = want[b](row.at.position, v),
                   error = std::abs(got[b](row.at.position, v) - w);
      const double ratio = error == 0 ? 0 : error / (atol + rtol * std::abs(w));
      ++check.n;
      if (!(ratio <= 1)) ++check.over;
      if (check.n == 1 || !(ratio <= check.value))
        check.value = ratio, check.at = {row.at.sequence, row.at.position, v};
    }
  }
  logits.user.push_back(check);
}

/// Two sides that are both right may differ by as much as each differs from the definition: KL is
/// half a squared distance (of the Fisher metric), so its roots add.
Noise sum_of(const Noise& a, const Noise& b) {
  Noise sum = a;
  for (std::size_t t = 0; t < sum.kl_limit.size(); ++t)
    sum.kl_limit[t] = std::pow(std::sqrt(a.kl_limit[t]) + std::sqrt(b.kl_limit[t]), 2);
  for (Index i = 0; i < sum.logits_allowed.size(); ++i)
    sum.logits_allowed.data()[i] += b.logits_allowed.data()[i];
  for (std::size_t t = 0; t < sum.reach.size(); ++t)
    if (!sum.reach[t].undecided) sum.reach[t] = b.reach[t];
  return sum;
}

/// Puts KL(golden || candidate) in the place of the candidate's own distance to the definition,
/// which stays as a further check.
void hold_against_golden(Judgement& judgement, const Golden& golden, const Golden& candidate,
                         const SideResult& golden_side, const SideResult& candidate_side,
                         const JudgeOptions& options) {
  if (!judgement.logits || golden_side.judgement.logits == std::nullopt) return;
  const std::size_t count = std::min(golden.logits.size(), candidate.logits.size());
  std::vector<Noise> noise;
  for (std::size_t b = 0; b < count; ++b)
    noise.push_back(sum_of(candidate_side.noise[b], golden_side.noise[b]));
  const std::vector<Tensor<double, 2>> want(golden.logits.begin(),
                                            golden.logits.begin() + static_cast<long>(count));
  LogitsResult against = judge_logits(golden.sequences, want, candidate.logits, noise,
                                      noise_options(options, *options.precision, true));
  against.kl.from += " of the candidate, plus the golden's";
  against.elements.from += " of the candidate, plus the golden's";
  const LogitsResult& definition = *candidate_side.judgement.logits;
  if (definition.kl.over > against.kl.over) against.kl = definition.kl;
  if (definition.elements.over > against.elements.over) against.elements = definition.elements;
  char text[160];
  std::snprintf(text, sizeof text,
                "by the definition: KL mean %.3g max %.3g, worst row %.3g of its limit, %lld over",
                definition.all.kl_mean, definition.all.kl_max,
                definition.kl.value / definition.kl.limit,
                static_cast<long long>(definition.kl.over));
  judgement.notes.push_back(text);
  judgement.logits = std::move(against);
}

bool all_in_bf16(const Golden& side) {
  for (const auto& logits : side.logits)
    for (double x : logits)
      if (std::isfinite(x) && round_to(Dtype::bf16, x) != x) return false;
  return !side.logits.empty();
}

/// A bf16 run stored as F32 fails an fp32 limit; says so when the pattern suggests it.
std::string bf16_hint(const fs::path& checkpoint, const Golden& side, const JudgeOptions& options) {
  if (all_in_bf16(side))
    return "every logit is a bf16 number: if the run was in bf16, say --precision hf-bf16";
  JudgeOptions again = options;
  again.progress = nullptr;
  const Models models = open_models(checkpoint, Precision::hf_bf16);
  if (!models.in_memory) return {};
  const SideResult bf16 =
      hold_against_definition(models, side, Precision::hf_bf16, "candidate", again);
  if (bf16.judgement.outcome == Outcome::fail) return {};
  return "the differences are of the size that bf16 leaves: if the run was in bf16, say "
         "--precision hf-bf16 (an fp32 run this far off is wrong)";
}

void judge_as(Verdict& verdict, const fs::path& checkpoint, const Golden& golden,
              const std::optional<Golden>& candidate, JudgeOptions options) {
  const bool stated = options.precision.has_value();
  const Golden& side = candidate ? *candidate : golden;
  if (!stated) options.precision = precision_of_dtype(side.dtype);
  SideResult result =
      hold_against_definition(open_models(checkpoint, *options.precision), side, *options.precision,
                              candidate ? "candidate" : "golden", options);
  std::vector<Tensor<double, 2>> ours;
  for (const Run& run : result.base) ours.push_back(run.logits);
  if (candidate) {
    const Precision precision = precision_of_dtype(golden.dtype);
    SideResult reference_side = hold_against_definition(open_models(checkpoint, precision), golden,
                                                        precision, "golden", options);
    verdict.golden_judged = reference_side.judgement;
    hold_against_golden(result.judgement, golden, side, reference_side, result, options);
    result.judgement.title = "candidate (" + std::string(name_of(*options.precision)) +
                             ") against the golden and the definition";
  }
  if (result.judgement.logits)
    add_user_checks(*result.judgement.logits, golden.logits, candidate ? side.logits : ours,
                    options);
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

}  // namespace

Precision precision_of_dtype(const std::string& dtype) {
  if (dtype == "fp64") return Precision::fp64;
  if (dtype == "bf16" || dtype == "f16") return Precision::hf_bf16;
  return Precision::hf_fp32;
}

Verdict judge(const fs::path& checkpoint, const fs::path& golden_path,
              const std::optional<fs::path>& candidate_path, const JudgeOptions& options) {
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
  const Golden golden = read_golden(golden_path, options.dtype, config.vocab_size);
  std::optional<Golden> candidate;
  if (candidate_path) {
    verdict.candidate = candidate_path->string();
    candidate = read_golden(*candidate_path, "", config.vocab_size);
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
  verdict.receipt = make_receipt(checkpoint, golden_path, candidate_path);
  verdict.receipt.seed = options.seed;
  verdict.receipt.runs = options.runs;
  verdict.receipt.alpha = options.alpha;
  verdict.receipt.peak_memory_mib = memory.peak_mib();
  verdict.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return verdict;
}

}  // namespace dsa::verify
