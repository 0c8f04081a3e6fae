// core/outputs.hpp — checks output paths before the work starts, and writes JSON whatever the
// results are.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"

namespace dsa {

/// Creates nothing; empty paths are skipped. Error: an output has no directory to lie in, is one
/// itself, is one of `inputs`, replaces what a checkpoint among them is read from, or is named
/// twice. Devices and pipes (/dev/null) may be named as often as one likes.
void check_outputs(const std::vector<std::filesystem::path>& outputs,
                   const std::vector<std::filesystem::path>& inputs);

/// A document as it is written to files: indented, with a newline at the end. Bytes that are not
/// UTF-8, of a path say, become U+FFFD: no document is refused once the work is done.
std::string json_text(const Json&);

}  // namespace dsa
