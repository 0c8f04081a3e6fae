// experiments/sweep/main.cpp — dsa-sweep: one training run after another, and what they say.
#include <string_view>
#include <vector>

#include "experiments/sweep/commands/commands.hpp"

namespace {

constexpr const char* about = R"(
Runs dsa-train once for every combination of the axes given, and keeps the results.

  dsa-sweep topk=16,32,64 seed=range(0,8) --config FILE.toml --out DIR
  dsa-sweep experiments/sweeps/topk.toml --out DIR    a registered sweep, with claims
  dsa-sweep report DIR... -o FILE.html                figures and verdicts

The plan is written before the first point. The same command again runs what is left: done points
are skipped, failed ones are tried again, and Ctrl-C loses the point at work alone.

Exit status: 0 every point is done, 1 a point failed, 2 bad usage or unusable input,
130 interrupted (Ctrl-C).)";

/// `run` may be left out before an axis or a file.
std::vector<char*> with_command(int argc, char** argv) {
  std::vector<char*> words(argv, argv + argc);
  static char run[] = "run";
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first.find_first_of("=./") != std::string_view::npos || first.starts_with("--config") ||
      first.starts_with("--out") || first == "--dry-run" || first == "--only")
    words.insert(words.begin() + 1, run);
  return words;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace dsa::sweep;
  std::vector<char*> words = with_command(argc, argv);
  return dsa::cli::run({"dsa-sweep", about, {run_command, report_command}},
                       static_cast<int>(words.size()), words.data());
}
