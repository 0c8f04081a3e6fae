#include "verify/diagnose.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/failure.hpp"
#include "verify/divergence.hpp"
#include "verify/receipt.hpp"
#include "verify/report.hpp"
#include "verify/side.hpp"

namespace dsa::verify {
namespace {

using Alter = std::function<void(Altered&)>;

/// Singles that take part in pairs, and how many of each ranking are held against the candidate.
constexpr std::size_t most_in_pairs = 6, most_held = 6;

struct Distance {
  double sum = 0, kl_max = 0;
};

/// sum (a-b)^2 / sum b^2 over the finite elements; 0 / 0 is 0.
double nmse(const Tensor<double, 2>& a, const Tensor<double, 2>& b) {
  double error = 0, norm = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = a.data()[i], y = b.data()[i];
    if (!std::isfinite(x) || !std::isfinite(y) || std::abs(y) > 1e30) continue;
    error += (x - y) * (x - y), norm += y * y;
  }
  return error == 0 ? 0 : error / norm;
}

/// What is left between the altered reference and the candidate.
Distance distance(const Altered& altered, const Golden& side) {
  Distance d;
  double rows = 0;
  for (std::size_t b = 0; b < side.logits.size(); ++b) {
    RunOptions run;
    run.span = {0, altered.model.config.num_hidden_layers};
    run.record_decisions = false;
    if (b == 0) run.keep = [&](const std::string& name) { return side.traces.contains(name); };
    const Run mine = run_reference(altered.model, side.sequences[b], altered.ops, run);
    for (Index t = 0; t < side.sequences[b].size(); ++t) {
      if (side.sequences[b].documents[static_cast<std::size_t>(t)] < 0) continue;
      const double kl = kl_divergence(side.logits[b].view()[t], mine.logits.view()[t]);
      d.sum += std::isfinite(kl) ? kl : 1e3, ++rows;
      d.kl_max = std::max(d.kl_max, kl);
    }
    for (const Trace::Entry& entry : mine.trace.entries()) {
      const Tensor<double, 2> theirs = trace_values(*side.traces.at(entry.name));
      if (!entry.name.ends_with("gate.weights") && theirs.shape() == entry.values.shape())
        d.sum += rows * std::min(1e3, nmse(entry.values, theirs));
    }
  }
  d.sum /= std::max(rows, 1.0);
  return d;
}

struct Arm {
  Ranked ranked;
  Alter alter;
};

std::vector<Arm> single_arms(const Config& config) {
  std::vector<Arm> arms;
  for (const Defect& defect : all_defects()) {
    if (!defect.applies(config)) continue;
    for (const Variant& variant : defect.variants) {
      Arm arm;
      arm.ranked = {{defect.number},
                    defect.name,
                    variant.name,
                    defect.sentence,
                    defect.link,
                    defect.first,
                    0,
                    0,
                    false,
                    false};
      arm.alter = variant.apply;
      arms.push_back(std::move(arm));
    }
  }
  return arms;
}

std::vector<Arm> pair_arms(const std::vector<Arm>& singles) {
  std::vector<Arm> pairs;
  for (std::size_t i = 0; i < std::min(most_in_pairs, singles.size()); ++i)
    for (std::size_t j = 0; j < singles.size(); ++j) {
      const Arm &a = singles[i], &b = singles[j];
      if (a.ranked.name == b.ranked.name || (j < i && j < most_in_pairs)) continue;
      Arm pair = a;
      pair.ranked.numbers.push_back(b.ranked.numbers.front());
      pair.ranked.name += " + " + b.ranked.name;
      pair.ranked.variant +=
          a.ranked.variant.empty() && b.ranked.variant.empty() ? "" : " + " + b.ranked.variant;
      pair.alter = [first = a.alter, second = b.alter](Altered& altered) {
        first(altered);
        second(altered);
      };
      pairs.push_back(std::move(pair));
    }
  return pairs;
}

/// Runs every arm and sorts them, best first.
void rank(const Models& models, const Golden& side, std::vector<Arm>& arms,
          const JudgeOptions& options) {
  Failure failure;
  const auto count = static_cast<int>(arms.size());
  int done = 0;
#pragma omp parallel for schedule(dynamic) if (models.in_memory)
  for (int i = 0; i < count; ++i)
    failure.guard([&] {
      Arm& arm = arms[static_cast<std::size_t>(i)];
      Altered altered = models.exact();
      arm.alter(altered);
      const Distance d = distance(altered, side);
      arm.ranked.distance = d.sum, arm.ranked.kl_max_after = d.kl_max;
#pragma omp critical
      if (options.progress) options.progress("known defects", ++done, count);
    });
  failure.rethrow();
  std::stable_sort(arms.begin(), arms.end(), [](const Arm& a, const Arm& b) {
    return a.ranked.distance < b.ranked.distance;
  });
}

/// Holds the best arms against the candidate; true if one explains it.
bool hold_best(const Models& models, const Golden& side, std::vector<Arm>& arms, double before,
               const JudgeOptions& options) {
  JudgeOptions quiet = options;
  quiet.progress = nullptr;
  bool found = false;
  for (std::size_t i = 0; i < std::min(most_held, arms.size()); ++i) {
    Arm& arm = arms[i];
    if (!(arm.ranked.distance < before)) break;
    // Once something explains the candidate, only what comes as close may explain it too.
    if (found && arm.ranked.distance > 10 * arms.front().ranked.distance) break;
    Models broken = models;
    broken.alter = arm.alter;
    arm.ranked.tried = true;
    const SideResult held = hold_against_definition(broken, side, "candidate", quiet);
    arm.ranked.explained = held.judgement.outcome == Outcome::pass;
    found |= arm.ranked.explained;
  }
  std::stable_partition(arms.begin(), arms.end(), [](const Arm& a) { return a.ranked.explained; });
  return found;
}

void take_ranking(Diagnosis& diagnosis, const std::vector<Arm>& arms) {
  for (const Arm& arm : arms) diagnosis.ranking.push_back(arm.ranked);
}

void conclude_defect(Diagnosis& diagnosis, const Ranked& best) {
  diagnosis.conclusion = "defect";
  diagnosis.defects = best.numbers;
  diagnosis.why = best.name + (best.variant.empty() ? "" : " (" + best.variant + ")") +
                  " explains the candidate to its noise: " + best.sentence;
}

std::string numbers_of(const Ranked& r) {
  std::string text;
  for (int number : r.numbers) text += (text.empty() ? "" : "+") + std::to_string(number);
  return text;
}

}  // namespace

Diagnosis diagnose(const std::filesystem::path& checkpoint, const std::filesystem::path& candidate,
                   const JudgeOptions& options) {
  Diagnosis diagnosis;
  diagnosis.checkpoint = checkpoint.string();
  diagnosis.candidate = candidate.string();
  const Config config = read_config(checkpoint);
  const Golden side = read_golden(candidate, options.dtype, config.vocab_size);
  require(!side.logits.empty(), side.path.string() +
                                    " has no logits (nor lm_head); a diagnosis "
                                    "needs them, dump them beside the trace");
  const reference::Precision precision =
      options.precision ? *options.precision : precision_of_dtype(side.dtype);
  diagnosis.precision = name_of(precision);
  const Models models = open_models(checkpoint, precision, config.fp8_block.has_value());
  JudgeOptions quick = options;
  quick.explain = true;
  diagnosis.plain = hold_against_definition(models, side, "candidate", quick).judgement;
  const Distance before = distance(models.exact(), side);
  diagnosis.kl_max_before = before.kl_max, diagnosis.distance_before = before.sum;
  if (diagnosis.plain.outcome == Outcome::pass) {
    diagnosis.conclusion = "correct";
    diagnosis.why = diagnosis.plain.why;
  } else {
    std::vector<Arm> arms = single_arms(config);
    diagnosis.variants = static_cast<Index>(arms.size());
    rank(models, side, arms, options);
    if (hold_best(models, side, arms, before.sum, options)) {
      conclude_defect(diagnosis, arms.front().ranked);
    } else {
      std::vector<Arm> pairs = pair_arms(arms);
      diagnosis.variants += static_cast<Index>(pairs.size());
      rank(models, side, pairs, options);
      if (hold_best(models, side, pairs, before.sum, options))
        conclude_defect(diagnosis, pairs.front().ranked);
      if (pairs.size() > most_held) pairs.resize(most_held);
      take_ranking(diagnosis, pairs);
    }
    take_ranking(diagnosis, arms);
    std::stable_partition(diagnosis.ranking.begin(), diagnosis.ranking.end(),
                          [](const Ranked& r) { return r.explained; });
    if (diagnosis.conclusion.empty()) {
      diagnosis.conclusion = "unknown";
      diagnosis.why =
          "none of the known defects, alone or in pairs, explains the candidate" +
          (diagnosis.plain.first_departure
               ? "; its trace departs first at " + *diagnosis.plain.first_departure
               : std::string("; give a trace of the same run: it names the tensor that departs"));
    }
  }
  diagnosis.receipt = make_receipt(checkpoint, candidate, std::nullopt);
  diagnosis.receipt.runs = options.runs, diagnosis.receipt.seed = options.seed;
  diagnosis.receipt.alpha = options.alpha;
  return diagnosis;
}

std::string table(const Diagnosis& d) {
  std::string text = fmt::format("checkpoint {}\ncandidate  {}, computed as {}\n", d.checkpoint,
                                 d.candidate, d.precision);
  text += fmt::format("against the definition: {} ({})\n", std::string(name_of(d.plain.outcome)),
                      d.plain.why);
  if (!d.ranking.empty()) {
    text += fmt::format("\n{} variants of known defects; KL max before {:.3g}\n", d.variants,
                        d.kl_max_before);
    text += fmt::format("{:<8} {:<40} {:<20} {:>10} {:>10}  {}\n", "defect", "name", "variant",
                        "remains", "KL max", "explained");
    for (std::size_t i = 0; i < std::min<std::size_t>(d.ranking.size(), 10); ++i) {
      const Ranked& r = d.ranking[i];
      text += fmt::format("{:<8} {:<40} {:<20} {:>10.3g} {:>10.3g}  {}\n", numbers_of(r), r.name,
                          r.variant, r.distance, r.kl_max_after,
                          r.explained ? "yes"
                          : r.tried   ? "no"
                                      : "-");
    }
    if (d.conclusion == "defect")
      text += fmt::format("\nfirst to diverge: {}\nreported at:      {}\n", d.ranking.front().first,
                          d.ranking.front().link);
  }
  return text + fmt::format("\n{}: {} -> exit {}\n", d.conclusion, d.why, exit_code(d));
}

Json to_json(const Diagnosis& d) {
  Json ranking = Json::array();
  for (const Ranked& r : d.ranking)
    ranking.push_back({{"defect", r.numbers.front()},
                       {"defects", r.numbers},
                       {"name", r.name},
                       {"variant", r.variant},
                       {"sentence", r.sentence},
                       {"link", r.link},
                       {"first", r.first},
                       {"distance_after", r.distance},
                       {"kl_max_before", d.kl_max_before},
                       {"kl_max_after", r.kl_max_after},
                       {"explained", r.explained}});
  return {{"conclusion", d.conclusion},
          {"why", d.why},
          {"defects", d.defects},
          {"ranking", ranking},
          {"checkpoint", d.checkpoint},
          {"candidate", d.candidate},
          {"precision", d.precision},
          {"distance_before", d.distance_before},
          {"kl_max_before", d.kl_max_before},
          {"first_departure", d.plain.first_departure ? Json(*d.plain.first_departure) : Json()},
          {"receipt", receipt_json(d.receipt)}};
}

int exit_code(const Diagnosis& d) { return d.conclusion == "correct" ? 0 : 1; }

}  // namespace dsa::verify
