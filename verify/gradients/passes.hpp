// verify/gradients/passes.hpp — backward passes of a batch: the definition's, perturbed ones, and
// those of known defects.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "reference/precision/precision.hpp"
#include "verify/defects/gradients/defect.hpp"
#include "verify/gradients/distance.hpp"
#include "verify/gradients/gradient_file.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// Which of exactly equal index scores are chosen, where not all can be (a score is exactly 0 where
/// no head's ReLU lets anything through): the lowest keys, as the definition does; those that
/// torch.topk leaves on a CPU; or, where neither gives a file's losses, any, which draws decide.
enum class TieOrder { lowest, torch, any };

/// What a file's numbers were computed from: the stage of training.
struct GradientStage {
  std::string words;
  Model model;
  std::vector<Sequence> sequences;
  KlSemantics semantics;
  Index topk = 0;  // of the checkpoint
  bool is_sparse = true;
  TieOrder ties = TieOrder::lowest;
};

/// The stage whose losses are nearest to the golden's: sparse, dense (every visible key is chosen),
/// or a KL over all visible keys under a sparse forward pass. Ties as the losses of `judged` tell.
GradientStage stage_of(const Model&, const GradientFile& golden, const KlSemantics&,
                       const GradientFile& judged);

/// Does any row see more keys than are chosen?
bool sees_selection(const GradientStage&);

/// The roundings of one draw; no draw: the definition.
struct GradientRoundings {
  reference::Precision precision = reference::Precision::fp64;
  std::optional<std::uint64_t> draw;
};

/// One loss of a stage, ready to run.
GradientVariant variant_of(const std::string& loss, const GradientStage&,
                           const GradientRoundings& = {});

/// One backward pass of one loss.
struct GradientPass {
  double loss = 0;
  std::vector<std::pair<std::string, Values>> gradients;  // in backward order
};
GradientPass run_backward(const GradientVariant&);

/// The value alone: no backward pass.
double loss_of(const GradientVariant&);

/// What perturbed runs gave: of each parameter both distances from `base`, and those of the loss.
struct GradientDraws {
  std::vector<std::vector<double>> whole, element;  // [parameter][run]; empty where base is zero
  std::vector<double> loss;                         // [run]
};

/// `alter` is applied to every run; empty: the definition.
GradientDraws draw_gradients(const std::string& loss, const GradientStage&,
                             const GradientPass& base, reference::Precision, const Draws&,
                             const std::function<void(GradientVariant&)>& alter = {});

}  // namespace dsa::verify
