#include "verify/diagnose/diagnose.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <set>

#include "verify/diagnose/lower_precision.hpp"
#include "verify/diagnose/search.hpp"
#include "verify/judge/notes.hpp"
#include "verify/judge/precision_of.hpp"
#include "verify/localise/suspects.hpp"
#include "verify/localise/weights.hpp"
#include "verify/names/name_map.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

/// Pairs that the ranking keeps.
constexpr std::size_t most_shown_pairs = 6;

void take_ranking(Diagnosis& diagnosis, const std::vector<Arm>& arms) {
  for (const Arm& arm : arms) diagnosis.ranking.push_back(arm.ranked);
}

std::string in_full(const Ranked& r) {
  return r.name + (r.variant.empty() ? "" : " (" + r.variant + ")");
}

/// "2e-31 of the distance 0.66 remains"
std::string remains(const Diagnosis& d, const Ranked& r) {
  return fmt::format("{:.3g} of the distance {:.3g} remains", r.distance, d.distance_before);
}

/// Names the first of the ranking, and what else explains the candidate as well. What others do by
/// right goes before a defect that computes the same.
void conclude_defect(Diagnosis& diagnosis) {
  std::stable_partition(diagnosis.ranking.begin(), diagnosis.ranking.end(),
                        [](const Ranked& r) { return r.explained && r.convention; });
  const Ranked& best = diagnosis.ranking.front();
  diagnosis.conclusion = "defect";
  diagnosis.defects = best.numbers;
  diagnosis.why = in_full(best) + " explains the candidate to its noise (" +
                  remains(diagnosis, best) + "): " + best.sentence;
  if (best.convention) diagnosis.conclusion = "convention";
  std::set<int> also;
  for (const Ranked& r : diagnosis.ranking)
    if (r.explained) also.insert(r.numbers.begin(), r.numbers.end());
  for (int number : best.numbers) also.erase(number);
  diagnosis.also.assign(also.begin(), also.end());
  if (also.empty() || best.convention) return;
  std::string numbers;
  for (int number : also) numbers += (numbers.empty() ? "" : ", ") + std::to_string(number);
  diagnosis.why += " This candidate cannot tell it from " + numbers + ", which explain" +
                   (also.size() == 1 ? "s" : "") + " it as well.";
}

/// The nearest variant, and why what it leaves is too much, or its passing no evidence.
std::string why_not(const Diagnosis& d) {
  for (const Ranked& r : d.ranking)
    if (!r.no_evidence.empty())
      return in_full(r) + " passes but explains nothing: " + r.no_evidence + " (" + remains(d, r) +
             ")";
  if (d.ranking.empty() || !(d.ranking.front().distance < d.distance_before))
    return "no variant comes nearer than the definition itself";
  const Ranked& nearest = d.ranking.front();
  return "the nearest, " + in_full(nearest) +
         ", leaves more than its noise: " + remains(d, nearest);
}

/// "; rows depart in prompts of more than ..."; empty where lengths tell nothing.
std::string of_lengths(const Diagnosis& diagnosis, const Recording& side, const Config& config) {
  if (!diagnosis.plain.logits || !config.indexer) return {};
  const std::string note =
      lengths_note(*diagnosis.plain.logits, side.sequences, config.indexer->topk);
  return note.empty() ? "" : "; " + note;
}

void conclude_unknown(Diagnosis& diagnosis, const Recording& side, const ModelPair& models) {
  diagnosis.conclusion = "unknown";
  const std::vector<std::string> ops = suspects(models, side, diagnosis.plain);
  diagnosis.suspects = ops;
  if (diagnosis.plain.first_departure)
    std::erase_if(diagnosis.suspects,
                  [&](const std::string& name) { return !side.trace.contains(name); });
  diagnosis.why = "none of the known defects, alone or in pairs, explains the candidate; " +
                  why_not(diagnosis) + "; ";
  if (diagnosis.suspects.size() <= 12) {
    diagnosis.why +=
        fmt::format("the fewest ops that differ: {}",
                    fmt::join(diagnosis.suspects.begin(), diagnosis.suspects.end(), ", "));
    if (const std::size_t hidden = ops.size() - diagnosis.suspects.size(); hidden > 0)
      diagnosis.why +=
          fmt::format(", or one of the {} ops before it that the file does not show", hidden);
  } else {
    diagnosis.why +=
        "it differs from the first key on, so that any op may be wrong: a trace of the same run "
        "names the tensor that differs first";
  }
  diagnosis.why += of_lengths(diagnosis, side, models.definition.config);
}

/// Of a trace that no defect explains: ops that compute with other weights. An adapter that was
/// forgotten or merged twice is a defect by itself, if nothing else is wrong.
void conclude_weights(Diagnosis& diagnosis, const Recording& side, const ModelPair& models,
                      const JudgeOptions& options) {
  constexpr int adapter = 115;
  JudgeOptions quiet = options;
  quiet.progress = nullptr;
  std::vector<FaultyOp> wrong;
  std::vector<OtherWeights> others;
  try {
    wrong = graft(models, side, quiet).wrong;
    others = other_weights(models, side, wrong);
  } catch (const Error&) {
    return;  // a tensor of another shape cannot be put in place of ours
  }
  if (others.empty()) return;
  const bool low = std::all_of(others.begin(), others.end(),
                               [](const OtherWeights& other) { return other.is_low(); });
  if (!low || others.size() < wrong.size()) {
    diagnosis.why += "; " + in_words(others);
    return;
  }
  diagnosis.conclusion = "defect";
  diagnosis.defects = {adapter};
  diagnosis.suspects.clear();
  for (const OtherWeights& other : others) diagnosis.suspects.push_back(other.name);
  diagnosis.why = in_words(others) + "; every other op of the trace is right by itself";
}

/// Singles, constants, pairs, until something explains the candidate.
void search(Diagnosis& diagnosis, Search& run, const ModelPair& models, const Recording& side,
            const JudgeOptions& options) {
  const Config& config = models.definition.config;
  std::vector<Arm> arms = single_arms(config), unread, pairs;
  run.rank(arms, "known defects");
  const bool decided = diagnosis.plain.outcome == Outcome::fail;
  bool found = decided && run.hold_best(arms);
  if (decided && !found) {
    run.widen(arms, config);
    found = run.hold_best(arms);
  }
  if (decided && !found) {
    unread = run.unread_arms(arms, config);
    found = run.hold_best(unread);
    std::erase_if(unread, [](const Arm& arm) { return !arm.ranked.explained; });
  }
  if (decided && !found) {
    pairs = pair_arms(arms);
    run.rank(pairs, "pairs");
    found = run.hold_best(pairs);
    if (pairs.size() > most_shown_pairs) pairs.resize(most_shown_pairs);
  }
  take_ranking(diagnosis, arms);  // of two that leave as much, the single one comes first
  take_ranking(diagnosis, unread);
  take_ranking(diagnosis, pairs);
  std::stable_sort(diagnosis.ranking.begin(), diagnosis.ranking.end(),
                   [](const Ranked& a, const Ranked& b) {
                     return a.explained != b.explained ? a.explained : a.distance < b.distance;
                   });
  diagnosis.variants = run.variants();
  if (found) {
    conclude_defect(diagnosis);
  } else if (decided) {
    conclude_unknown(diagnosis, side, models);
    if (diagnosis.plain.first_departure) conclude_weights(diagnosis, side, models, options);
  } else {
    diagnosis.conclusion = "unknown";
    diagnosis.why =
        "nothing is shown to be wrong, so that no defect is named: " + diagnosis.plain.why;
  }
}

/// Numbers of the narrower format show it; differences of its size alone are a hint.
void conclude_precision(Diagnosis& diagnosis, const LowerPrecision& lower) {
  const std::string name(name_of(lower.precision));
  if (!lower.shown) {
    diagnosis.why += fmt::format(
        "; or the run is right and computed in {}: nothing is left beyond the noise of {}, and the "
        "differences are of the size that it leaves ({:.2g} times its mean KL); judge it with "
        "--precision {}",
        lower.words, name, lower.ratio, name);
    return;
  }
  diagnosis.conclusion = "precision";
  diagnosis.suspects.clear();
  diagnosis.computed_in = name;
  diagnosis.why = fmt::format(
      "computed in {}: its numbers are of that format, and nothing is left beyond the noise of {}, "
      "where {} was expected; judge it with --precision {}",
      lower.words, name, diagnosis.precision, name);
}

}  // namespace

Diagnosis diagnose(const ModelPair& models, const Recording& side, const JudgeOptions& options) {
  const Config& config = models.definition.config;
  Diagnosis diagnosis;
  diagnosis.candidate = side.path.string();
  diagnosis.precision = name_of(models.precision);
  const SideResult plain = hold_against_definition(models, side, "candidate", options);
  diagnosis.plain = plain.judgement;
  Search run(models, side, options, plain);
  diagnosis.kl_max_before = run.before().kl_max, diagnosis.distance_before = run.before().sum;
  const bool pass = diagnosis.plain.outcome == Outcome::pass;
  const Index keys = longest_visible(side.sequences);
  if (pass && config.indexer && config.use_sparse_attention && keys <= config.indexer->topk) {
    diagnosis.conclusion = "unknown";
    diagnosis.why =
        "no query sees more than " + std::to_string(keys) + " keys and the indexer keeps " +
        std::to_string(config.indexer->topk) +
        ": every selection is the same, right or wrong; use a sequence longer than top-k";
    diagnosis.plain.outcome = Outcome::inconclusive;
  } else if (pass) {
    diagnosis.conclusion = "correct";
    diagnosis.why = diagnosis.plain.why;
  } else {
    search(diagnosis, run, models, side, options);
  }
  return diagnosis;
}

Diagnosis diagnose(const std::filesystem::path& checkpoint, const std::filesystem::path& candidate,
                   const JudgeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const MemoryWatch memory;
  const Config config = read_config(checkpoint);
  const Recording side = read_named(candidate, options.dtype, config, options.names);
  const reference::Precision precision =
      options.precision ? *options.precision : precision_of(side);
  const ModelPair models =
      open_models(Checkpoint(checkpoint, options).stored, precision, config.fp8_block.has_value());
  Diagnosis diagnosis = diagnose(models, side, options);
  diagnosis.checkpoint = checkpoint.string();
  diagnosis.candidate = candidate.string();
  if (diagnosis.conclusion == "unknown" && diagnosis.plain.outcome == Outcome::fail)
    if (const auto lower = lower_precision(models.stored, side, precision, options))
      conclude_precision(diagnosis, *lower);
  diagnosis.receipt = make_receipt(checkpoint, candidate, std::nullopt);
  diagnosis.receipt.draws = options;
  diagnosis.receipt.peak_memory_mib = memory.peak_mib();
  diagnosis.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return diagnosis;
}

int exit_code(const Diagnosis& d) {
  if (d.conclusion == "correct") return 0;
  return d.plain.outcome == Outcome::fail ? 1 : 3;
}

}  // namespace dsa::verify
