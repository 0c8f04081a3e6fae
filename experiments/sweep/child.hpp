// experiments/sweep/child.hpp — another program, run and measured.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace dsa::sweep {

struct Ended {
  int status = 0;  // of exit, or 128 + the signal that ended it
  double wall_s = 0, cpu_s = 0, peak_mib = 0;
  std::string last_line;  // of what it printed; "" where it printed nothing
};

/// What it prints goes to `log`. It ends with this process: nobody is left to use what it makes.
/// Error: the program cannot be started.
Ended run_child(const std::vector<std::string>& command, const std::filesystem::path& log);

/// As run_child ended: interrupted by Ctrl-C, which a terminal sends to both.
bool was_interrupted(const Ended&);

}  // namespace dsa::sweep
