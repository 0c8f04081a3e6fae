// cli/progress.hpp — how far long work is and when it will end: one line on a terminal's stderr,
// written over and over; nothing in a pipe or a file.
#pragma once

#include <functional>
#include <string>

namespace dsa::cli {

/// `done` of `of` steps of `what` are done. From one thread at a time.
using Progress = std::function<void(const std::string& what, int done, int of)>;

/// Empty where stderr is no terminal. The estimate is that of the steps of one `what`.
Progress progress();

/// Progress of the i-th of n pieces of work, as part of the whole. Empty where `whole` is.
Progress part_of(const Progress& whole, const std::string& name, int i, int n);

/// Clears the line, so that something else can be printed.
void end_progress();

/// "known defects  [######                  ]  25 %, 40 s left": what the line says.
std::string progress_line(const std::string& what, double share, double seconds_so_far);

}  // namespace dsa::cli
