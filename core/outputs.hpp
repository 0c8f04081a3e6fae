// core/outputs.hpp — checks output paths before the work starts.
#pragma once

#include <filesystem>
#include <vector>

namespace dsa {

/// Creates nothing; empty paths are skipped. Error: an output has no directory to lie in, is one
/// itself, is one of `inputs`, replaces what a checkpoint among them is read from, or is named
/// twice. Devices and pipes (/dev/null) may be named as often as one likes.
void check_outputs(const std::vector<std::filesystem::path>& outputs,
                   const std::vector<std::filesystem::path>& inputs);

}  // namespace dsa
