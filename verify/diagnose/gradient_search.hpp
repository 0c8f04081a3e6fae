// verify/diagnose/gradient_search.hpp — the variants of training defects run against one loss.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "verify/diagnose/gradients.hpp"
#include "verify/gradients/limits.hpp"

namespace dsa::verify {

/// What a search compares with: one loss of a file.
struct FoundGradients {
  std::optional<double> loss;
  const ByParameter* gradients = nullptr;  // null: none
  const ByParameter* golden = nullptr;     // likewise
};

struct GradientArm {
  RankedGradients ranked;
  std::function<void(GradientVariant&)> alter;
  bool changes_loss = false, only_factor = false;
  std::optional<double> loss;  // once it is known
  bool has_run = false;
  /// A factor in front of the gradients, and of the loss, that leaves less.
  double factor = 1, distance_with_factor = 0;
  bool factor_of_loss = false;
  /// Gradients that the golden has, the candidate lacks, and that the arm makes zero: autograd
  /// gives none where nothing arrives. Absence alone proves nothing, so this only orders.
  Index absent = 0;
};

/// Every variant of every training defect that can occur there.
std::vector<GradientArm> training_arms(const GradientVariant& right);

/// What the arm computes; base: what the definition does. Error: the alteration does not fit.
GradientPass pass_of(const GradientArm&, const GradientVariant& right, const GradientPass& base);

class GradientSearch {
 public:
  /// Borrows everything. loss_limit: how far the right loss may lie from the definition's.
  GradientSearch(const std::string& loss, const GradientStage&, FoundGradients,
                 reference::Precision, const GradientOptions&, double loss_limit);

  /// Distance of the definition: the root mean square of what differs of each gradient and of the
  /// loss, each over the larger of the two.
  double before() const { return before_; }

  /// Every arm that the value of the loss does not exclude, best first; true if one explains it.
  bool run();

  const std::vector<GradientArm>& arms() const { return arms_; }
  Index variants() const { return variants_; }

 private:
  void list_arms();
  void list_forward_arms();
  void find_losses();
  bool is_near(const GradientArm&, double factor) const;
  bool is_near_by_count(const GradientArm&) const;
  void run_backwards(const std::function<bool(const GradientArm&)>& which);
  double remains(const GradientPass&) const;
  void sort();
  bool hold_best();
  void hold(GradientArm&) const;
  void fit_factor(GradientArm&, GradientPass) const;
  void add_factors();

  std::string loss_;
  const GradientStage& stage_;
  FoundGradients found_;
  reference::Precision precision_;
  const GradientOptions& options_;
  double loss_limit_, tail_;
  GradientVariant right_;
  GradientPass base_;
  double before_ = 0;
  std::vector<double> counts_;  // factors that losses are given by mistake
  std::vector<GradientArm> arms_;
  Index variants_ = 0;
};

}  // namespace dsa::verify
