// experiments/sweep/main.cpp — dsa-sweep: one training run after another, and what they say.
#include "experiments/sweep/commands/commands.hpp"

namespace {

constexpr const char* about = R"(
Runs dsa-train once for every combination of the axes given, and keeps the results.

  dsa-sweep topk=16,32,64 seed=range(0,8) --config FILE.toml --out DIR
  dsa-sweep experiments/sweeps/topk.toml --out DIR    a registered sweep, with claims
  dsa-sweep topk=16,32 --checkpoint DIR --config FILE.toml --out DIR    measured, not trained
  dsa-sweep report DIR... -o FILE.html                figures and verdicts

The plan is written before the first point. The same command again runs what is left: done points
are skipped, failed ones are tried again, and Ctrl-C loses the point at work alone.

Exit status: 0 every point is done, 1 a point failed, 2 bad usage or unusable input,
130 interrupted (Ctrl-C).)";

}  // namespace

int main(int argc, char** argv) {
  using namespace dsa::sweep;
  return dsa::cli::run({"dsa-sweep", about, {run_command, report_command, evaluate_command}, "run"},
                       argc, argv);
}
