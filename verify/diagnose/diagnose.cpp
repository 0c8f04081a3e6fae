#include "verify/diagnose/diagnose.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "core/failure.hpp"
#include "verify/defects/alter.hpp"
#include "verify/diagnose/distance.hpp"
#include "verify/judge/against_definition.hpp"
#include "verify/judge/judge.hpp"
#include "verify/localise/suspects.hpp"
#include "verify/measure/fit.hpp"
#include "verify/names/name_map.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

using Alter = std::function<void(Variant&)>;

/// Singles that take part in pairs, how many of each ranking are held against the candidate, and
/// how many constants are fitted.
constexpr std::size_t most_in_pairs = 6, most_held = 6, most_fitted = 6;

/// Of variants that explain a candidate, those within this factor of the best are as good: what
/// remains is rounding noise of different runs.
constexpr double as_close = 10;

struct Arm {
  Ranked ranked;
  Alter alter;
  const Defect* defect = nullptr;
};

Arm arm_of(const Defect& defect, const DefectVariant& variant) {
  Arm arm;
  arm.ranked.numbers = {defect.number};
  arm.ranked.name = defect.name, arm.ranked.variant = variant.name;
  arm.ranked.sentence = defect.sentence, arm.ranked.link = defect.link;
  arm.ranked.first = defect.first;
  arm.alter = variant.apply;
  arm.defect = &defect;
  return arm;
}

std::vector<Arm> single_arms(const Config& config) {
  std::vector<Arm> arms;
  for (const Defect& defect : all_defects())
    if (defect.applies(config))
      for (const DefectVariant& variant : defect.variants) arms.push_back(arm_of(defect, variant));
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
      pair.ranked.tried = pair.ranked.explained = false;
      pair.alter = [first = a.alter, second = b.alter](Variant& altered) {
        first(altered);
        second(altered);
      };
      pairs.push_back(std::move(pair));
    }
  return pairs;
}

void sort_by_distance(std::vector<Arm>& arms) {
  std::stable_sort(arms.begin(), arms.end(), [](const Arm& a, const Arm& b) {
    return a.ranked.distance < b.ranked.distance;
  });
}

/// One run of the search: who is diagnosed, and with what.
struct Search {
  const ModelPair& models;
  const Recording& side;
  const JudgeOptions& options;
  double before = 0;  // distance of the definition
  Index variants = 0;

  Distance left(const Alter& alter) const {
    Variant altered = models.exact();
    alter(altered);
    return distance(altered, side);
  }

  /// f(i) for i < n, side by side where the model is in memory.
  void each(std::size_t n, const std::string& what, const std::function<void(std::size_t)>& f) {
    Failure failure;
    const auto count = static_cast<int>(n);
    int done = 0;
#pragma omp parallel for schedule(dynamic) if (models.in_memory)
    for (int i = 0; i < count; ++i)
      failure.guard([&] {
        f(static_cast<std::size_t>(i));
#pragma omp critical
        if (options.progress) options.progress(what, ++done, count);
      });
    failure.rethrow();
  }

  /// Runs every arm and sorts them, best first.
  void rank(std::vector<Arm>& arms, const std::string& what) {
    each(arms.size(), what, [&](std::size_t i) {
      const Distance d = left(arms[i].alter);
      arms[i].ranked.distance = d.sum, arms[i].ranked.kl_max_after = d.kl_max;
    });
    variants += static_cast<Index>(arms.size());
    sort_by_distance(arms);
  }

  /// Holds the best arms against the candidate; true if one explains it.
  bool hold_best(std::vector<Arm>& arms) {
    JudgeOptions quiet = options;
    quiet.progress = nullptr;
    bool found = false;
    std::size_t held = 0;
    for (Arm& arm : arms) {
      if (!(arm.ranked.distance < before) || held == most_held) break;
      if (found && arm.ranked.distance > as_close * arms.front().ranked.distance) break;
      if (arm.ranked.tried) continue;
      ++held;
      ModelPair broken = models;
      broken.alter = arm.alter;
      arm.ranked.tried = true;
      const SideResult result = hold_against_definition(broken, side, "candidate", quiet);
      arm.ranked.explained = result.judgement.outcome == Outcome::pass;
      found |= arm.ranked.explained;
    }
    std::stable_partition(arms.begin(), arms.end(),
                          [](const Arm& a) { return a.ranked.explained; });
    return found;
  }

  /// Adds an arm for each constant of the nearest defects, at the value that leaves least.
  void fit_constants(std::vector<Arm>& arms, const Config& config) {
    std::vector<const Defect*> chosen;
    for (const Arm& arm : arms)
      if (chosen.size() < most_fitted && arm.defect->constant &&
          std::find(chosen.begin(), chosen.end(), arm.defect) == chosen.end())
        chosen.push_back(arm.defect);
    std::vector<Arm> fitted(chosen.size());
    each(chosen.size(), "constants", [&](std::size_t i) {
      const Constant& c = *chosen[i]->constant;
      const auto at = [&](double value) -> Alter {
        return [value, apply = c.apply](Variant& altered) { apply(altered, value); };
      };
      const auto [from, to] = c.range(config);
      const double value = fit([&](double x) { return left(at(x)).sum; }, from, to, c.whole);
      fitted[i] = arm_of(*chosen[i], {constant(c.name, value), at(value)});
    });
    rank(fitted, "constants");
    for (const Arm& arm : fitted)  // a value that was seen is among the variants already
      if (std::none_of(arms.begin(), arms.end(), [&](const Arm& other) {
            return other.defect == arm.defect && other.ranked.variant == arm.ranked.variant;
          }))
        arms.push_back(arm);
    sort_by_distance(arms);
  }
};

void take_ranking(Diagnosis& diagnosis, const std::vector<Arm>& arms) {
  for (const Arm& arm : arms) diagnosis.ranking.push_back(arm.ranked);
}

std::string in_full(const Ranked& r) {
  return r.name + (r.variant.empty() ? "" : " (" + r.variant + ")");
}

/// Names the first of the ranking, and what else explains the candidate as well.
void conclude_defect(Diagnosis& diagnosis) {
  const Ranked& best = diagnosis.ranking.front();
  diagnosis.conclusion = "defect";
  diagnosis.defects = best.numbers;
  diagnosis.why = in_full(best) + " explains the candidate to its noise: " + best.sentence;
  std::set<int> also;
  for (const Ranked& r : diagnosis.ranking)
    if (r.explained) also.insert(r.numbers.begin(), r.numbers.end());
  for (int number : best.numbers) also.erase(number);
  diagnosis.also.assign(also.begin(), also.end());
  if (also.empty()) return;
  std::string numbers;
  for (int number : also) numbers += (numbers.empty() ? "" : ", ") + std::to_string(number);
  diagnosis.why += " This candidate cannot tell it from " + numbers + ", which explain" +
                   (also.size() == 1 ? "s" : "") + " it as well.";
}

void conclude_unknown(Diagnosis& diagnosis, const Recording& side, const ModelPair& models,
                      const JudgeOptions& options) {
  diagnosis.conclusion = "unknown";
  diagnosis.suspects = suspects(models, side, diagnosis.plain);
  diagnosis.why = "none of the known defects, alone or in pairs, explains the candidate; ";
  if (diagnosis.suspects.size() <= 12) {
    std::string ops;
    for (const std::string& op : diagnosis.suspects) ops += (ops.empty() ? "" : ", ") + op;
    diagnosis.why += "the fewest ops that depart: " + ops;
  } else {
    diagnosis.why += "it departs from the first key on, so that any op may be wrong: a trace of " +
                     std::string("the same run names the tensor that departs");
  }
  if (options.precision) return;
  if (const std::string hint = bf16_hint(models, side, options); !hint.empty())
    diagnosis.why += "; or " + hint;
}

/// Singles, constants, pairs, until something explains the candidate.
void search(Diagnosis& diagnosis, Search& run, const Config& config) {
  std::vector<Arm> arms = single_arms(config), pairs;
  run.rank(arms, "known defects");
  const bool decided = diagnosis.plain.outcome == Outcome::fail;
  bool found = decided && run.hold_best(arms);
  if (decided && !found) {
    run.fit_constants(arms, config);
    found = run.hold_best(arms);
  }
  if (decided && !found) {
    pairs = pair_arms(arms);
    run.rank(pairs, "pairs");
    found = run.hold_best(pairs);
    if (pairs.size() > most_held) pairs.resize(most_held);
  }
  take_ranking(diagnosis, pairs);
  take_ranking(diagnosis, arms);
  std::stable_sort(diagnosis.ranking.begin(), diagnosis.ranking.end(),
                   [](const Ranked& a, const Ranked& b) {
                     return a.explained != b.explained ? a.explained : a.distance < b.distance;
                   });
  diagnosis.variants = run.variants;
  if (found) {
    conclude_defect(diagnosis);
  } else if (decided) {
    conclude_unknown(diagnosis, run.side, run.models, run.options);
  } else {
    diagnosis.conclusion = "unknown";
    diagnosis.why =
        "nothing is shown to be wrong, so that no defect is named: " + diagnosis.plain.why;
  }
}

}  // namespace

Diagnosis diagnose(const std::filesystem::path& checkpoint, const std::filesystem::path& candidate,
                   const JudgeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const MemoryWatch memory;
  Diagnosis diagnosis;
  diagnosis.checkpoint = checkpoint.string();
  diagnosis.candidate = candidate.string();
  const Config config = read_config(checkpoint);
  const Recording side = read_named(candidate, options.dtype, config, options.names);
  const reference::Precision precision =
      options.precision ? *options.precision : precision_of_dtype(side.dtype);
  diagnosis.precision = name_of(precision);
  const ModelPair models = open_models(checkpoint, precision, config.fp8_block.has_value());
  diagnosis.plain = hold_against_definition(models, side, "candidate", options).judgement;
  const Distance before = distance(models.exact(), side);
  diagnosis.kl_max_before = before.kl_max, diagnosis.distance_before = before.sum;
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
    Search run{models, side, options, before.sum};
    search(diagnosis, run, config);
  }
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
