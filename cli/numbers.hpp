// cli/numbers.hpp — numbers on command lines, checked in one place: no NaN, no infinity, nothing
// beyond its range, no text behind the digits, decimal always.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>

#include "core/tensor.hpp"

namespace dsa::cli {

/// Decimal integers from `least` to `most`.
struct Integers {
  Index least = 0, most = std::numeric_limits<Index>::max();
};

/// Finite numbers from `least` to `most`; `above`: the least itself is not one of them.
struct Reals {
  double least = 0, most = std::numeric_limits<double>::infinity();
  bool above = false;
};

// `names` as CLI11 has them, "--length" or "-n,--length".
CLI::Option* add_integer(CLI::App&, const std::string& names, Index& value, Integers,
                         const std::string& what);
CLI::Option* add_integer(CLI::App&, const std::string& names, int& value, Integers,
                         const std::string& what);
CLI::Option* add_real(CLI::App&, const std::string& names, double& value, Reals,
                      const std::string& what);

/// --seed: any number of 64 bits, without a sign.
CLI::Option* add_seed(CLI::App&, std::uint64_t& seed, const std::string& what);

}  // namespace dsa::cli
