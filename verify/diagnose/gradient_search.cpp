#include "verify/diagnose/gradient_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/threads.hpp"
#include "verify/defects/defect.hpp"
#include "verify/measure/infinity.hpp"

namespace dsa::verify {
namespace {

/// How many of a ranking are held against the candidate, and how many factors are fitted.
constexpr std::size_t most_held = 6, most_fitted = 4;

/// Of variants that explain a candidate, those within this factor of the best are as good.
constexpr double as_close = 10;

/// The limit of a loss is that of the definition; a variant's may be wider.
constexpr double elsewhere = 4;

double relative(double a, double b) {
  const double larger = std::max(std::abs(a), std::abs(b));
  return larger == 0 ? 0 : std::abs(a - b) / larger;
}

/// |a - b| over the larger norm; 0 where both are nothing.
double relative(const Values& a, const Values& b) {
  const double larger = std::max(norm(a), norm(b));
  if (larger == 0) return 0;
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares) / larger;
}

GradientArm arm_of(const std::string& loss, const GradientDefect& defect, GradientChange change) {
  GradientArm arm;
  RankedGradients& r = arm.ranked;
  r.loss = loss, r.number = defect.number, r.name = defect.name, r.variant = change.name;
  r.sentence = defect.sentence, r.link = defect.link, r.first = defect.first;
  r.convention = defect.convention;
  r.worst_over_allowed = std::numeric_limits<double>::quiet_NaN();
  r.distance = inf;
  arm.alter = std::move(change.apply);
  arm.changes_loss = defect.changes_loss, arm.only_factor = defect.only_factor;
  return arm;
}

/// A variant of a defect of the forward pass. Its backward pass is the definition's formulas on
/// altered activations, which is what autograd gives where a number of the config is altered.
GradientArm arm_of(const std::string& loss, const Defect& defect, const DefectVariant& variant) {
  GradientArm arm =
      arm_of(loss,
             GradientDefect{defect.number,
                            defect.name,
                            defect.sentence,
                            defect.link,
                            defect.first,
                            {},
                            {},
                            true,
                            defect.convention},
             {variant.name, [apply = variant.apply](GradientVariant& v) { apply(v); }});
  return arm;
}

}  // namespace

std::vector<GradientArm> training_arms(const GradientVariant& right) {
  std::vector<GradientArm> arms;
  for (const GradientDefect& defect : all_gradient_defects())
    if (defect.applies(right))
      for (GradientChange& change : changes_of(defect, right))
        arms.push_back(arm_of(right.loss, defect, std::move(change)));
  return arms;
}

GradientPass pass_of(const GradientArm& arm, const GradientVariant& right,
                     const GradientPass& base) {
  GradientVariant v = right;
  arm.alter(v);
  if (!arm.only_factor) return run_backward(v);
  GradientPass pass = base;
  pass.loss *= v.loss_factor;
  for (auto& [name, values] : pass.gradients)
    for (double& value : values) value *= v.gradient_factor;
  return pass;
}

GradientSearch::GradientSearch(const std::string& loss, const GradientStage& stage,
                               FoundGradients found, reference::Precision precision,
                               const GradientOptions& options, double loss_limit)
    : loss_(loss),
      stage_(stage),
      found_(found),
      precision_(precision),
      options_(options),
      loss_limit_(loss_limit),
      right_(variant_of(loss, stage)),
      base_(run_backward(right_)) {
  tail_ = options.alpha / static_cast<double>(2 * base_.gradients.size());
  before_ = remains(base_);
}

double GradientSearch::remains(const GradientPass& pass) const {
  double squares = 0, count = 0;
  const auto add = [&](double difference) {
    squares += std::isnan(difference) ? inf : difference * difference;
    ++count;
  };
  if (found_.loss) add(relative(*found_.loss, pass.loss));
  if (found_.gradients)
    for (const auto& [name, want] : pass.gradients) {
      const auto mine = found_.gradients->find(name);
      if (mine == found_.gradients->end()) continue;  // None or not stored: no evidence
      if (norm(mine->second.values) > 0 || norm(want) > 0) add(relative(mine->second.values, want));
    }
  return count == 0 ? inf : std::sqrt(squares / count);
}

void GradientSearch::list_arms() {
  arms_ = training_arms(right_);
  for (const GradientArm& arm : arms_) {
    if (!arm.only_factor) continue;
    GradientVariant v = right_;
    arm.alter(v);
    counts_.push_back(v.loss_factor);
  }
}

void GradientSearch::list_forward_arms() {
  for (const Defect& defect : all_defects())
    if (defect.applies(right_.model.config))
      for (const DefectVariant& variant : defect.variants)
        arms_.push_back(arm_of(loss_, defect, variant));
}

/// The value of the loss of every arm: a pass forwards where the arm changes it.
void GradientSearch::find_losses() {
  const auto n = static_cast<Index>(arms_.size());
  parallel_for(n, shared_loop_ns, [&](Index i) {
    GradientArm& arm = arms_[static_cast<std::size_t>(i)];
    if (arm.loss) return;
    GradientVariant v = right_;
    try {
      arm.alter(v);
      arm.loss = arm.only_factor || !arm.changes_loss ? v.loss_factor * base_.loss : loss_of(v);
    } catch (const Error&) {
      arm.loss = inf;  // two alterations exclude each other
    }
  });
}

/// The candidate's loss may be `factor` times the arm's.
bool GradientSearch::is_near(const GradientArm& arm, double factor) const {
  if (!found_.loss) return true;
  const double mine = factor * *arm.loss;
  const double scale = std::max(1.0, std::abs(mine / base_.loss));
  return std::abs(*found_.loss - mine) <= elsewhere * scale * loss_limit_;
}

/// ... or times a count that losses are divided by.
bool GradientSearch::is_near_by_count(const GradientArm& arm) const {
  return std::any_of(counts_.begin(), counts_.end(),
                     [&](double count) { return is_near(arm, count); });
}

void GradientSearch::run_backwards(const std::function<bool(const GradientArm&)>& which) {
  std::vector<GradientArm*> chosen;
  for (GradientArm& arm : arms_)
    if (!arm.has_run && which(arm)) chosen.push_back(&arm);
  parallel_for(static_cast<Index>(chosen.size()), shared_loop_ns, [&](Index i) {
    GradientArm& arm = *chosen[static_cast<std::size_t>(i)];
    arm.has_run = true;
    try {
      GradientPass pass = pass_of(arm, right_, base_);
      arm.ranked.distance = remains(pass);
      fit_factor(arm, std::move(pass));
    } catch (const Error&) {
      arm.ranked.distance = inf;  // the alteration does not fit this model
    }
  });
  variants_ += static_cast<Index>(chosen.size());
  sort();
}

void GradientSearch::sort() {
  std::stable_sort(arms_.begin(), arms_.end(), [](const GradientArm& a, const GradientArm& b) {
    if (a.ranked.explained != b.ranked.explained) return a.ranked.explained;
    if (a.ranked.explained && a.absent != b.absent) return a.absent > b.absent;
    return a.ranked.distance < b.ranked.distance;
  });
}

/// Within the limits of perturbed runs with the defect, which the definition is not.
void GradientSearch::hold(GradientArm& arm) const {
  arm.ranked.tried = true;
  arm.absent = 0;
  GradientVariant v = right_;
  arm.alter(v);
  const GradientPass pass = pass_of(arm, right_, base_);
  const GradientLimits limits(v, pass,
                              draw_gradients(loss_, stage_, pass, precision_, options_, arm.alter),
                              precision_, tail_);
  double worst = 0, of_definition = 0;
  const auto take = [](double& most, double ratio) {
    most = std::isnan(ratio) ? inf : std::max(most, ratio);
  };
  if (found_.loss) {
    take(worst, std::abs(*found_.loss - pass.loss) / limits.of_loss());
    take(of_definition, std::abs(base_.loss - pass.loss) / limits.of_loss());
  }
  for (std::size_t p = 0; found_.gradients && p < pass.gradients.size(); ++p) {
    const auto& [name, want] = pass.gradients[p];
    const auto mine = found_.gradients->find(name);
    if (mine == found_.gradients->end()) {
      arm.absent += norm(want) == 0 && found_.golden && found_.golden->contains(name);
      continue;
    }
    const auto same = std::find_if(base_.gradients.begin(), base_.gradients.end(),
                                   [&](const auto& other) { return other.first == name; });
    const StoredValues right{mine->second.dtype, same->second};
    if (norm(want) == 0) {
      take(worst, norm(mine->second.values) > 0 ? inf : 0);
      take(of_definition, norm(right.values) > 0 ? inf : 0);
    } else {
      take(worst, limits.measured(p, mine->second).worst_over_allowed);
      take(of_definition, limits.measured(p, right).worst_over_allowed);
    }
  }
  arm.ranked.worst_over_allowed = worst;
  arm.ranked.explained = worst <= 1 && of_definition > 1;
}

bool GradientSearch::hold_best() {
  bool found = false;
  double best = inf;
  std::size_t held = 0;
  for (GradientArm& arm : arms_) {
    if (!arm.has_run || !(arm.ranked.distance < before_) || held == most_held) break;
    if (found && arm.ranked.distance > as_close * best) break;
    if (arm.ranked.tried) continue;
    ++held;
    hold(arm);
    if (arm.ranked.explained && !found) found = true, best = arm.ranked.distance;
  }
  sort();
  return found;
}

/// The median over parameters, which one that is wrong for another reason does not move.
void GradientSearch::fit_factor(GradientArm& arm, GradientPass pass) const {
  arm.distance_with_factor = inf;
  if (!found_.gradients || arm.only_factor) return;
  std::vector<double> ratios;
  for (const auto& [name, want] : pass.gradients) {
    const auto mine = found_.gradients->find(name);
    if (mine == found_.gradients->end() || norm(want) == 0) continue;
    double along = 0;
    for (std::size_t i = 0; i < want.size(); ++i) along += want[i] * mine->second.values[i];
    ratios.push_back(along / (norm(want) * norm(want)));
  }
  if (ratios.empty()) return;
  const auto middle = ratios.begin() + static_cast<Index>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  arm.factor = *middle;
  if (!std::isfinite(arm.factor) || std::abs(arm.factor - 1) < 1e-6) return;
  arm.factor_of_loss = found_.loss && relative(*found_.loss, arm.factor * pass.loss) <
                                          relative(*found_.loss, pass.loss);
  if (arm.factor_of_loss) pass.loss *= arm.factor;
  for (auto& [name, values] : pass.gradients)
    for (double& value : values) value *= arm.factor;
  arm.distance_with_factor = remains(pass);
}

/// The definition and the nearest arms, with a factor in front of everything.
void GradientSearch::add_factors() {
  const auto all = all_gradient_defects();
  const auto normalisation = std::find_if(all.begin(), all.end(), [](const GradientDefect& d) {
    return d.name == "loss-normalisation";
  });
  GradientArm plain = arm_of(loss_, *normalisation, {"", [](GradientVariant&) {}});
  plain.only_factor = false;
  plain.loss = base_.loss;
  fit_factor(plain, base_);
  std::vector<GradientArm> scaled = {plain};
  for (const GradientArm& arm : arms_)
    if (arm.has_run && !arm.only_factor) scaled.push_back(arm);
  std::stable_sort(scaled.begin(), scaled.end(), [](const GradientArm& a, const GradientArm& b) {
    return a.distance_with_factor < b.distance_with_factor;
  });
  if (scaled.size() > most_fitted) scaled.resize(most_fitted);
  for (GradientArm& arm : scaled) {
    arm.has_run = true;
    arm.ranked.tried = arm.ranked.explained = false;
    arm.ranked.distance = arm.distance_with_factor;
    arm.ranked.variant +=
        fmt::format("{}{} times {:.6g}", arm.ranked.variant.empty() ? "" : ", ",
                    arm.factor_of_loss ? "loss and gradients" : "gradients", arm.factor);
    arm.alter = [inner = arm.alter, factor = arm.factor,
                 in_loss = arm.factor_of_loss](GradientVariant& v) {
      inner(v);
      v.gradient_factor *= factor;
      if (in_loss) v.loss_factor *= factor;
    };
    if (std::isfinite(arm.ranked.distance)) arms_.push_back(arm);
  }
  variants_ += static_cast<Index>(scaled.size());
  sort();
}

/// What the value of the loss allows; then factors, with the variants that the value allows by one;
/// then the forward pass's own defects.
bool GradientSearch::run() {
  list_arms();
  find_losses();
  run_backwards([&](const GradientArm& arm) { return is_near(arm, 1); });
  if (hold_best()) return true;
  run_backwards([&](const GradientArm& arm) { return is_near_by_count(arm); });
  add_factors();
  if (hold_best()) return true;
  list_forward_arms();
  find_losses();
  run_backwards([&](const GradientArm& arm) { return is_near(arm, 1); });
  return hold_best();
}

}  // namespace dsa::verify
