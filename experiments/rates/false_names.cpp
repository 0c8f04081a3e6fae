// experiments/rates/false_names.cpp — how often `diagnose` names a known defect that is not there.
//
// N candidates are drawn that are wrong in ways that the catalogue does not hold
// (experiments/rates/unknown_candidates.hpp). Every defect, convention or precision that is named
// is a false name; `correct` is none where the change lies within the precision's limits.
#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <map>

#include "cli/program.hpp"
#include "experiments/rates/common.hpp"
#include "experiments/rates/unknown_candidates.hpp"
#include "verify/diagnose/diagnose.hpp"
#include "verify/measure/stats.hpp"

namespace {

using namespace dsa;

constexpr std::uint64_t first_seed = 0xFA15E4A3E0000;

constexpr const char* what =
    "Candidates drawn that are wrong as no known defect is; named: how many `diagnose` calls by a "
    "known defect. at_most: the rate's upper bound at 95 % confidence (Clopper-Pearson, one-sided)";

double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

int run(const std::string& name, const std::string& samples, int candidates, std::uint64_t from,
        const std::string& json, const verify::JudgeOptions& options, const std::string& line) {
  const auto start = std::chrono::steady_clock::now();
  const double before = processor_seconds();
  const experiments::Setting setting = experiments::setting_named(samples, name);
  const verify::ModelPair models = verify::open_models(setting.checkpoint, setting.precision);
  const Sequence sequence = experiments::without_logits(setting).sequences.front();
  std::map<std::string, int> conclusions;
  int named = 0;
  for (int i = 0; i < candidates; ++i) {
    const auto seed = first_seed + from + static_cast<std::uint64_t>(i);
    const experiments::Unknown drawn = experiments::draw_unknown(models, sequence, seed);
    const verify::Diagnosis d = verify::diagnose(models, drawn.candidate, options);
    ++conclusions[d.conclusion];
    if (d.conclusion != "correct" && d.conclusion != "unknown") {
      ++named;
      std::printf("candidate %d, %s: %s\n", i, drawn.how.c_str(), d.why.c_str());
    }
    std::fflush(stdout);
  }
  const double at_most = verify::most_probable(candidates, named, 0.95);
  const double processor = processor_seconds() - before;
  std::printf(
      "%s: %d candidates, %d false names (at most %.2f %%), %.1f s of processor time each\n",
      setting.name().c_str(), candidates, named, 100 * at_most, processor / candidates);
  if (!json.empty()) {
    Json row = {{"setting", setting.name()},
                {"candidates", candidates},
                {"named", named},
                {"at_most", at_most},
                {"conclusions", conclusions},
                {"processor_seconds", processor}};
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    row["receipt"] = experiments::receipt_of(setting, options, line, seconds);
    experiments::write_rows(json, what, Json::array({row}));
  }
  return named == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "false_names: how often does `diagnose` name a known defect that is not there?\n\n"
      "Exit status: 0 never, 1 some time, 2 usage or bad input."};
  std::string name, samples = "data/samples", json;
  int candidates = 500;
  std::uint64_t from = 0;
  verify::JudgeOptions options;
  options.runs = 4;
  app.add_option("SETTING", name, "SAMPLE:PRECISION, e.g. v32:hf-fp32")->required();
  app.add_option("--samples", samples, "Directory of samples")->capture_default_str();
  app.add_option("--candidates", candidates, "How many are drawn")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--from", from, "Skip so many candidates")->capture_default_str();
  app.add_option("--runs", options.runs, "Perturbed runs of each kind, of the judge")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--json", json, "Put the row into this file; rows of other settings stay");
  CLI11_PARSE(app, argc, argv);
  const std::string line = cli::command_line_of("false_names", argc, argv);
  try {
    return run(name, samples, candidates, from, json, options, line);
  } catch (const std::exception& e) {
    std::cerr << "false_names: " << e.what() << "\n";
    return 2;
  }
}
