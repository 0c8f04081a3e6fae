#include "verify/diagnose/search.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/checkpoint.hpp"
#include "core/threads.hpp"
#include "core/trace_names.hpp"
#include "verify/defects/alter.hpp"
#include "verify/diagnose/evidence.hpp"
#include "verify/measure/fit.hpp"
#include "verify/measure/infinity.hpp"

namespace dsa::verify {
namespace {

/// Singles that take part in pairs, how many of each ranking are held against the candidate, and
/// how many constants are fitted.
constexpr std::size_t most_in_pairs = 6, most_held = 6, most_fitted = 6;

/// Of variants that explain a candidate, those within this factor of the best are as good: what
/// remains is rounding noise of different runs.
constexpr double as_close = 10;

/// What a fit adds where a run ended early: more than any distance.
constexpr double barrier = 1e6;

Arm arm_of(const Defect& defect, const DefectVariant& variant) {
  Arm arm;
  arm.ranked.numbers = {defect.number};
  arm.ranked.name = defect.name, arm.ranked.variant = variant.name;
  arm.ranked.sentence = defect.sentence, arm.ranked.link = defect.link;
  arm.ranked.first = defect.first;
  arm.ranked.convention = defect.convention;
  arm.alter = variant.apply;
  arm.defect = &defect;
  return arm;
}

void sort_by_distance(std::vector<Arm>& arms) {
  std::stable_sort(arms.begin(), arms.end(), [](const Arm& a, const Arm& b) {
    return a.ranked.distance < b.ranked.distance;
  });
}

bool holds(const std::vector<Arm>& arms, const Arm& arm) {
  return std::any_of(arms.begin(), arms.end(), [&](const Arm& other) {
    return other.defect == arm.defect && other.ranked.variant == arm.ranked.variant;
  });
}

}  // namespace

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
      if (!std::isfinite(a.ranked.distance) || b.distance.excluded) continue;
      Arm pair = a;
      pair.ranked.numbers.push_back(b.ranked.numbers.front());
      pair.ranked.name += " + " + b.ranked.name;
      pair.ranked.variant +=
          a.ranked.variant.empty() && b.ranked.variant.empty() ? "" : " + " + b.ranked.variant;
      pair.ranked.tried = pair.ranked.explained = false;
      pair.ranked.open = pair.ranked.differing = 0;
      pair.ranked.no_evidence.clear();
      pair.ranked.convention = a.ranked.convention && b.ranked.convention;
      pair.alter = [first = a.alter, second = b.alter](Variant& altered) {
        first(altered);
        second(altered);
      };
      pairs.push_back(std::move(pair));
    }
  return pairs;
}

Search::Search(const ModelPair& models, const Recording& side, const JudgeOptions& options,
               const SideResult& plain)
    : models_(models),
      side_(side),
      options_(options),
      plain_(plain),
      distances_(side, models.exact(), plain) {
  if (!options.weights_of.empty())
    other_weights_ =
        other_weights_defect(open_checkpoint(options.weights_of), models.definition.config);
}

/// Arms that leave more than the definition are of no interest, but for their order where several
/// defects act together.
Distance Search::left(const Alter& alter) const {
  constexpr double several = 4;
  Distance none;
  none.sum = none.kl_max = inf;
  none.excluded = true;
  try {
    Variant altered = models_.exact();
    alter(altered);
    return distances_.screened(altered, several * before().sum);
  } catch (const Error&) {
    return none;
  }
}

/// f(i) for i < n, side by side where the model is in memory.
void Search::each(std::size_t n, const std::string& what,
                  const std::function<void(std::size_t)>& f) {
  const auto count = static_cast<int>(n);
  int done = 0;
  std::mutex progress;
  parallel_for(count, models_.in_memory ? shared_loop_ns : 0, [&](int i) {
    f(static_cast<std::size_t>(i));
    const std::lock_guard lock(progress);
    if (options_.progress) options_.progress(what, ++done, count);
  });
}

void Search::rank(std::vector<Arm>& arms, const std::string& what) {
  each(arms.size(), what, [&](std::size_t i) {
    const Distance d = arms[i].distance = left(arms[i].alter);
    arms[i].ranked.distance = d.sum, arms[i].ranked.kl_max_after = d.kl_max;
  });
  variants_ += static_cast<Index>(arms.size());
  sort_by_distance(arms);
}

void Search::hold(Arm& arm, const JudgeOptions& options) const {
  ModelPair broken = models_;
  broken.alter = arm.alter;
  arm.ranked.tried = true;
  try {
    const SideResult result = hold_against_definition(broken, side_, "candidate", options);
    if (result.judgement.outcome != Outcome::pass) return;
    Evidence evidence = weigh(models_, plain_, broken, result, side_);
    evidence.distance_before = before().sum, evidence.distance_after = arm.ranked.distance;
    arm.ranked.differing = evidence.differing, arm.ranked.open = evidence.open;
    arm.ranked.no_evidence = evidence.why_none();
    arm.ranked.explained = arm.ranked.no_evidence.empty();
  } catch (const Error&) {
    arm.ranked.distance = inf;
  }
}

bool Search::hold_best(std::vector<Arm>& arms) {
  JudgeOptions quiet = options_;
  quiet.progress = nullptr;
  bool found = false;
  std::size_t held = 0;
  for (Arm& arm : arms) {
    if (!(arm.ranked.distance < before().sum) || held == most_held) break;
    if (found && arm.ranked.distance > as_close * arms.front().ranked.distance) break;
    if (arm.ranked.tried) continue;
    ++held;
    hold(arm, quiet);
    found |= arm.ranked.explained;
    if (options_.progress)
      options_.progress("nearest variants", static_cast<int>(held), static_cast<int>(most_held));
  }
  std::stable_partition(arms.begin(), arms.end(), [](const Arm& a) { return a.ranked.explained; });
  return found;
}

/// Some variant of the defect changes the first tensor that differs, and none before it.
bool Search::may_explain(const Defect& defect, const std::vector<Arm>& arms) const {
  if (!distances_.has_first()) return true;
  return std::any_of(arms.begin(), arms.end(), [&](const Arm& arm) {
    return arm.defect == &defect && !arm.distance.excluded &&
           arm.distance.at_first != before().at_first;
  });
}

std::vector<Arm> Search::fitted(const std::vector<Arm>& arms, const Config& config) {
  std::vector<const Defect*> chosen;
  for (const Arm& arm : arms)
    if (chosen.size() < most_fitted && arm.defect->constant && may_explain(*arm.defect, arms) &&
        std::find(chosen.begin(), chosen.end(), arm.defect) == chosen.end())
      chosen.push_back(arm.defect);
  std::vector<Arm> fitted(chosen.size());
  each(chosen.size(), "constants", [&](std::size_t i) {
    const Constant& c = *chosen[i]->constant;
    const auto at = [&](double value) -> Alter {
      return [value, apply = c.apply](Variant& altered) { apply(altered, value); };
    };
    const auto [from, to] = c.range(config);
    const auto remains = [&](double x) {
      const Distance d = left(at(x));
      return std::isfinite(d.sum) || !distances_.has_first() ? d.sum : barrier + d.at_first;
    };
    const double value = fit(remains, from, to, c.whole);
    const std::string meaning = c.meaning ? c.meaning(config, value) : "";
    fitted[i] =
        arm_of(*chosen[i],
               {constant(c.name, value) + (meaning.empty() ? "" : " = " + meaning), at(value)});
  });
  return fitted;
}

/// Whether one of them may explain the candidate is told by trying: a variant of the catalogue that
/// acts in every layer changes tensors before the first that differs where the mistake is in one.
std::vector<Arm> Search::further(const Config& config) const {
  Symptom symptom;
  for (const Sequence& sequence : side_.sequences)
    symptom.rows = std::max(symptom.rows, sequence.size());
  symptom.first = std::max<Index>(0, first_difference(plain_, models_, side_));
  std::vector<Arm> arms;
  for (const Defect& defect : all_defects())
    if (defect.applies(config) && defect.more)
      for (const DefectVariant& variant : defect.more(config, symptom))
        arms.push_back(arm_of(defect, variant));
  if (other_weights_)
    for (const DefectVariant& variant : other_weights_->variants)
      arms.push_back(arm_of(*other_weights_, variant));
  return arms;
}

std::vector<Arm> Search::unread_arms(const std::vector<Arm>& arms, const Config& config) {
  std::vector<Arm> unread_ones;
  if (!is_indexer_part(distances_.first()) || !config.use_sparse_attention) return unread_ones;
  for (const Arm& arm : arms) {
    if (!arm.defect->first.ends_with(names::indexer_scores) &&
        !arm.defect->first.ends_with(names::indexer))
      continue;
    Arm& one = unread_ones.emplace_back(arm);
    one.alter = unread(arm.alter);
    one.ranked.variant += (arm.ranked.variant.empty() ? "" : ", ") +
                          std::string("the attention reads the right selection");
    one.ranked.tried = one.ranked.explained = false;
    one.ranked.open = one.ranked.differing = 0;
    one.ranked.no_evidence.clear();
  }
  rank(unread_ones, "selections that are not read");
  return unread_ones;
}

void Search::widen(std::vector<Arm>& arms, const Config& config) {
  std::vector<Arm> wider = fitted(arms, config);
  for (Arm& arm : further(config)) wider.push_back(std::move(arm));
  std::erase_if(wider, [&](const Arm& arm) { return holds(arms, arm); });
  rank(wider, "constants and places");
  arms.insert(arms.end(), wider.begin(), wider.end());
  sort_by_distance(arms);
}

}  // namespace dsa::verify
