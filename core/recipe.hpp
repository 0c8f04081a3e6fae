// core/recipe.hpp — how a model is trained, as data: the stage, the optimiser and its schedule.
//
// A trajectory was made by a recipe, and dsa-verify training replays it; dsa-train runs one. JSON:
//
//   {"stage": "sparse", "attention": "sparse",
//    "coefficients": {"lm": 1, "kl": 0.01, "mtp": 0, "balance": 0}, "bias_update_rate": 0,
//    "semantics": {"name": "paper"}, "trained": [],
//    "adamw": {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "eps_inside_root": false,
//              "bias_correction": true, "weight_decay": 0.1, "decoupled": true,
//              "decayed": "matrices"},
//    "clip": {"max_norm": 1, "eps": 1e-6}, "accumulation": 1,
//    "schedule": {"kind": "constant", "lr": 1e-3, "warmup": 0, "steps": 20, "final": 0,
//                 "decay": 0}}
//
// Every key may be left out; these are the defaults.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/json_fwd.hpp"
#include "core/kl_semantics.hpp"
#include "core/tensor.hpp"

namespace dsa {

/// Adam with weight decay (Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv
/// 1711.05101), and the choices in which implementations differ.
struct AdamW {
  enum class Decayed { matrices, all };  // matrices: parameters of two or more dimensions

  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  bool eps_inside_root = false;  // m / sqrt(v + eps); otherwise m / (sqrt(v) + eps)
  bool bias_correction = true;   // of both moments
  double weight_decay = 0.1;
  bool decoupled = true;  // p loses lr weight_decay p; otherwise the gradient gains weight_decay p
  Decayed decayed = Decayed::matrices;
};

/// The learning rate of a step, counted from 0.
struct Schedule {
  /// cosine: to `final` over the steps after the warm-up; wsd: constant, then linear to `final`
  /// over the last `decay` steps.
  enum class Kind { constant, cosine, wsd };

  Kind kind = Kind::constant;
  double lr = 1e-3;
  Index warmup = 0;  // steps: lr (step + 1) / warmup
  Index steps = 20;
  double final = 0;  // share of lr
  Index decay = 0;   // steps of wsd

  double at(Index step) const;
};

/// torch's clip_grad_norm_: the gradient times min(1, max_norm / (norm + eps)), the norm over every
/// trained parameter. max_norm 0: none.
struct Clip {
  double max_norm = 1, eps = 1e-6;
};

struct Recipe {
  /// A stage is a set of defaults (default_recipe). pretrain: dense attention, the language-model
  /// loss, everything but the indexer; warmup: dense attention, KL over every visible key, the
  /// indexer alone; sparse: top-k attention, both losses, everything.
  enum class Stage { pretrain, warmup, sparse };
  enum class Attention { dense, sparse };

  Stage stage = Stage::sparse;
  Attention attention = Attention::sparse;         // of the main model
  double lm = 1, kl = 0.01, mtp = 0, balance = 0;  // coefficients of the losses
  double bias_update_rate =
      0;                  // DeepSeek-V3's gamma: the router's correction bias follows the load
  KlSemantics semantics;  // of the indexer's KL; in the warm-up in_warmup() of what is named
  std::vector<std::string> trained;  // regular expressions searched in the parameter's name
  AdamW adamw;
  Clip clip;
  Index accumulation = 1;  // micro-batches a step; the batch is cut into equal parts
  Schedule schedule;

  /// Whether a parameter is trained. No expression: what the stage trains. The router's correction
  /// bias never is: it has no gradient.
  bool trains(const std::string& parameter) const;
};

/// The defaults of a stage.
Recipe default_recipe(Recipe::Stage);

/// Errors are one sentence that begins with `what`: an unknown key, a number out of range, an
/// expression that is none.
Recipe parse_recipe(const Json&, const std::string& what);
Json to_json(const Recipe&);

std::string_view name_of(Recipe::Stage);  // "pretrain", "warmup", "sparse"

}  // namespace dsa
