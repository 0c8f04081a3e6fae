// verify/limits/held_runs.hpp — limits of any pass whose decisions can be held, forwards or
// backwards.
#pragma once

#include "verify/limits/noise.hpp"

namespace dsa::verify {

/// May rewrite what a decision chose: RunOptions::decide.
using Decide = decltype(RunOptions::decide);

/// A run with the roundings of one draw, whatever is run, whose decisions `held` makes.
using PerturbedRun = std::function<Run(std::uint64_t draw, const Decide& held)>;

/// `base`: the definition's run whose decisions are held.
Limits measure_limits(const PerturbedRun&, const Run& base, const IsFixed&, const NoiseOptions&);

}  // namespace dsa::verify
