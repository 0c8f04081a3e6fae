// verify/defects/gradients/defect.hpp — known bugs of training, as variants of a backward pass.
//
// A defect replaces rows of the table of backward ops, what a loss is made of (its weights,
// targets, keys and guards), or what is handed out. It is never an `if` inside reference/. The
// catalogue is all_gradient_defects(); docs/defects.md prints it.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/recording.hpp"
#include "reference/model/backward.hpp"
#include "verify/runs/variant.hpp"

namespace dsa::verify {

/// One loss of a batch, and all that its gradients are made of.
struct GradientVariant : Variant {
  std::string loss;                 // "lm", "kl", "mtp" or "balance"
  std::vector<Sequence> sequences;  // the batch, padding as it was given
  Index topk = 0;                   // of the checkpoint; the model's own is S in a dense stage
  reference::BackwardOps<double> backward;
  Sequence sequence;  // the batch joined, as `objective.semantics` sees it
  reference::Objective<double> objective;
  double loss_factor = 1, gradient_factor = 1;  // of all that is handed out
  /// May rewrite the gradient of a parameter, as it is handed out.
  std::function<void(const std::string& name, View<double, 2> gradient)> handed_out;

  bool is(const char* wanted) const { return loss == wanted; }
};

/// The mean of the loss `variant.loss` by a reading: sequence and objective anew.
void read_as(GradientVariant&, const KlSemantics&);

struct GradientChange {
  std::string name;  // "" where there is only one
  std::function<void(GradientVariant&)> apply;
};

struct GradientDefect {
  int number = 0;        // in docs/defects.md; above 200: plausible, not reported
  std::string name;      // "softmax-without-delta": unique among all defects, stable
  std::string sentence;  // what is wrong, in one sentence
  std::string link;      // a report of it; empty where there is none
  std::string first;     // where a backward pass first departs: a module, or the loss itself
  std::function<bool(const GradientVariant& right)> applies;
  std::vector<GradientChange> variants;
  /// The value of the loss is another, too. If not, a right value excludes nothing.
  bool changes_loss = false;
  /// Not a mistake: trainers differ by right.
  bool convention = false;
  /// Variants that depend on the model or on the batch; they come behind `variants`.
  std::function<std::vector<GradientChange>(const GradientVariant& right)> more = {};
  /// Nothing but the two factors of a variant: no pass is needed. Other factors are fitted.
  bool only_factor = false;
};

using GradientDefects = std::vector<GradientDefect>;

/// One function a family, one file each in verify/defects/gradients/.
GradientDefects target_defects();   // what a row must predict, and what it counts
GradientDefects reading_defects();  // whose reading of the indexer's loss
GradientDefects kl_defects();       // its formula and its rows
GradientDefects teacher_defects();  // what it is compared with
GradientDefects attached_teacher_defects();
GradientDefects indexer_gradient_defects();
GradientDefects attention_gradient_defects();
GradientDefects attention_key_defects();
GradientDefects module_defects();  // norms, rotation, linear modules, embedding
GradientDefects expert_defects();  // router, experts, SwiGLU
GradientDefects flow_defects();    // residual stream, layers, accumulation

/// All of them, in order of number.
std::span<const GradientDefect> all_gradient_defects();

/// `variants` and `more` of a defect.
std::vector<GradientChange> changes_of(const GradientDefect&, const GradientVariant& right);

}  // namespace dsa::verify
