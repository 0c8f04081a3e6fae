#include "verify/judge/samples.hpp"

#include <algorithm>
#include <map>

namespace dsa::verify {

namespace fs = std::filesystem;

std::vector<Sample> find_samples(const fs::path& directory) {
  require(fs::is_directory(directory), directory.string() + " is not a directory of samples");
  std::vector<Sample> samples;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const fs::path checkpoint = entry.path() / "checkpoint";
    if (!fs::exists(checkpoint / "config.json")) continue;
    for (const auto& file : fs::directory_iterator(entry.path())) {
      const std::string extension = file.path().extension().string();
      if (extension != ".safetensors" && extension != ".jsonl") continue;
      const Recording golden = read_recording(file.path(), "", 0);
      if (golden.columns.size() < 2)
        samples.push_back({checkpoint, file.path(), ""});
      else
        for (const std::string& column : golden.columns)
          samples.push_back({checkpoint, file.path(), column});
    }
  }
  require(!samples.empty(), directory.string() +
                                " holds no sample; expected NAME/checkpoint/config.json with "
                                "goldens NAME/*.safetensors beside it");
  std::stable_sort(samples.begin(), samples.end(),
                   [](const Sample& a, const Sample& b) { return a.golden < b.golden; });
  return samples;
}

Outcome outcome_of_samples(const std::vector<Verdict>& verdicts) {
  std::map<std::string, bool> passed;
  for (const Verdict& verdict : verdicts) {
    if (verdict.outcome == Outcome::fail) return Outcome::fail;
    passed[verdict.checkpoint] |= verdict.outcome == Outcome::pass;
  }
  const bool all =
      std::all_of(passed.begin(), passed.end(), [](const auto& p) { return p.second; });
  return all && !passed.empty() ? Outcome::pass : Outcome::inconclusive;
}

}  // namespace dsa::verify
