#include "optimized/train/pipeline/resume.hpp"

#include "core/check.hpp"
#include "optimized/train/pipeline/state.hpp"

namespace dsa::train {

namespace fs = std::filesystem;

std::optional<fs::path> checkpoint_to_resume(const Settings& settings,
                                             const RunDirectory& directory) {
  const std::string resume = settings.text("run.resume");
  const auto found = checkpoints_of(directory.checkpoints());
  if (resume == "never") {
    require(found.empty(), directory.path().string() +
                               " holds checkpoints, and run.resume is never; choose another "
                               "run.out, or remove them");
    return {};
  }
  if (resume == "auto") return found.empty() ? std::nullopt : std::optional(found.rbegin()->second);
  const bool is_step = !resume.empty() && resume.find_first_not_of("0123456789") == resume.npos;
  const fs::path chosen = is_step ? directory.checkpoints() / ("step-" + resume) : fs::path(resume);
  require(fs::is_directory(chosen), "there is no checkpoint " + chosen.string() +
                                        " to resume; run.resume is auto, never, a step or a path");
  const Index step = read_state(chosen).step;
  require(found.empty() || found.rbegin()->first <= step,
          directory.path().string() + " holds checkpoints beyond step " + std::to_string(step) +
              ", which the run would write again; choose another run.out, or remove them");
  return chosen;
}

}  // namespace dsa::train
