// verify/training/recipe_of.hpp — the recipe of a recorded run.
#pragma once

#include <string>

#include "core/recipe.hpp"
#include "core/weights.hpp"
#include "verify/training/trajectory.hpp"

namespace dsa::verify {

struct KnownRecipe {
  Recipe recipe;
  std::string from;      // "FILE", "the metadata of FILE", or what was assumed, in words
  bool assumed = false;  // nobody said it
};

/// From `file`, a JSON of core/recipe.hpp; else from the trajectory's metadata; else what its shape
/// says: the stage by the final parameters that it has, the schedule by its rates, and of the usual
/// limits of the clip the first under which its own first steps come out. The rest are the defaults
/// of core/recipe.hpp.
KnownRecipe recipe_of(const Trajectory&, const Model&, const std::string& file);

}  // namespace dsa::verify
