// verify/training/replay.hpp — the steps of a training run, taken again by the definition.
//
//   one step:  losses and gradients of the batch (reference/model/backward.hpp), the norm of all
//              trained gradients, the clip, AdamW on every trained parameter
//              (reference/ops/adamw.hpp)
//
// In double, or with the roundings of a precision drawn at random: then forward and backward round
// as reference/precision says, parameters and moments are kept in float32, and bf16 runs keep
// float32 parameters of which the model reads bf16 copies.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/recipe.hpp"
#include "core/weights.hpp"
#include "reference/model/backward_ops.hpp"
#include "reference/model/forward.hpp"
#include "reference/precision/precision.hpp"
#include "verify/training/trajectory.hpp"

namespace dsa::verify {

/// How a trainer carries its recipe out. As they stand, the members say: as it is written.
struct Procedure {
  /// What one clip looks at: all gradients together, each parameter alone, or each number.
  enum class ClipOver { run, parameter, number };

  Recipe recipe;
  Index schedule_shift = 0;  // step n uses the rate of step n + shift; before the first step: 0
  ClipOver clip_over = ClipOver::run;
  bool clipped_norm_recorded = false;  // grad_norm is what the clip leaves
  double gradient_factor = 1;          // of the accumulated gradient
  Index correction_shift = 0;          // of the step that the bias correction counts
  bool moments_kept = true;            // from step to step
  bool decay_scheduled = true;         // lr x decay; otherwise the schedule's full rate x decay
};

/// The roundings of one draw; no draw: the definition.
struct Roundings {
  reference::Precision precision = reference::Precision::fp64;
  std::optional<std::uint64_t> draw;
};

/// Changes the ops of one step; a forced decision is one.
using Alter = std::function<void(reference::Ops<double>&, reference::BackwardOps<double>&)>;

/// What a step computes before its update.
struct BeforeUpdate {
  StepRecord losses;
  std::map<std::string, std::vector<double>> gradients;
};

class Replay {
 public:
  /// Starts at the model's parameters. `recorded`: which quantities are asked for.
  Replay(const Model&, Procedure, std::vector<std::string> recorded, Roundings = {});

  /// Takes the next step. `tap` sees the forward pass.
  StepRecord step(const Sequence& batch, const Alter& alter = {},
                  const reference::Tap<double>& tap = {});

  /// The same, where losses and gradients are known.
  StepRecord step(BeforeUpdate);

  /// Losses and gradients of the step that is next.
  BeforeUpdate before_update(const Sequence& batch, const Alter& alter = {},
                             const reference::Tap<double>& tap = {});

  Index steps() const { return steps_; }
  bool trains(const std::string& parameter) const;
  const std::vector<double>& operator[](const std::string& parameter) const {
    return weights_.at(parameter).p;
  }

  /// The model as it stands, borrowed from here, with the recipe's attention.
  Model current() const;

 private:
  struct Weight {
    std::vector<double> p, m, v;  // the moments of what is not trained are empty
    bool decayed = false;
    bool trained() const { return !m.empty(); }
  };
  struct Ops {
    reference::Ops<double> forward;
    reference::BackwardOps<double> backward;
  };
  using Gradients = decltype(BeforeUpdate::gradients);
  using Loads = std::map<std::string, std::vector<Index>>;  // by name of the routing

  Ops ops_of_step() const;
  bool asks(const std::string& quantity) const;
  void losses(StepRecord&, Gradients&, const Sequence&, const Ops&,
              const reference::Tap<double>&) const;
  double norm_of(const Gradients&) const;
  double rate_of(Index step) const;
  void clip(Gradients&, double norm) const;
  void update(const Gradients&, double rate);
  void update_biases();
  void round_all(std::vector<double>&, const std::string& name, int times) const;

  Model start_;  // config and names; its parameters are read from weights_
  Procedure procedure_;
  std::vector<std::string> recorded_;
  Roundings roundings_;
  std::map<std::string, Weight> weights_;
  Loads loads_;  // of the next step's forward pass
  Index steps_ = 0;
};

}  // namespace dsa::verify
