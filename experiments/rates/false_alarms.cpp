// experiments/rates/false_alarms.cpp — how often the judge rejects what is right.
//
// For a sample and a precision, N candidates are drawn: runs of the reference with the roundings of
// that precision at random, decisions falling as they may, seeds that the judge never uses. All are
// right, so every `fail` is a false alarm.
#include <cstdio>
#include <iostream>
#include <mutex>

#include "cli/program.hpp"
#include "core/random.hpp"
#include "core/threads.hpp"
#include "experiments/rates/common.hpp"
#include "verify/measure/stats.hpp"

namespace {

using namespace dsa;
using experiments::Setting;

/// The judge's draws are random_bits(seed, m); the candidates' begin here.
constexpr std::uint64_t first_seed = 0xCA4D1DA7E0000;

/// One sentence a reading needs to be believed.
constexpr const char* what =
    "Candidates drawn with the roundings of a precision, all of them right; alarms: how many the "
    "judge fails. at_most: the rate's upper bound at 95 % confidence (Clopper-Pearson, one-sided). "
    "undecided, explained: share of all rows";

struct Count {
  int alarms = 0, inconclusive = 0;
  double rows = 0, undecided = 0, explained = 0;
  std::vector<std::string> whys;
  std::mutex mutex;  // of all of these
};

/// Why a candidate failed, and by how much.
std::string in_words(std::uint64_t seed, const verify::Judgement& judged) {
  char text[160];
  std::snprintf(text, sizeof text,
                " (candidate %llu; %.3g times the KL limit, %.3g times the "
                "elementwise)",
                static_cast<unsigned long long>(seed - first_seed),
                judged.logits->kl.got / judged.logits->kl.allowed, judged.logits->elements.worst);
  return judged.why + text;
}

void judge_one(const verify::ModelPair& models, Recording side, std::uint64_t seed,
               const std::vector<verify::SequenceResult>& measured,
               const verify::JudgeOptions& options, Count& count) {
  for (verify::Run& run : experiments::correct_runs(models, side.sequences, seed))
    side.logits.push_back(std::move(run.logits));
  const verify::Judgement judged =
      verify::hold_against_definition(models, side, "candidate", options, &measured).judgement;
  const std::lock_guard lock(count.mutex);
  count.alarms += judged.outcome == verify::Outcome::fail;
  count.inconclusive += judged.outcome == verify::Outcome::inconclusive;
  count.rows += static_cast<double>(judged.logits->all.rows);
  count.undecided += static_cast<double>(judged.logits->undecided());
  count.explained += static_cast<double>(judged.logits->explained());
  if (judged.outcome == verify::Outcome::fail) count.whys.push_back(in_words(seed, judged));
}

Json measure(const Setting& setting, int candidates, std::uint64_t from,
             const verify::JudgeOptions& options) {
  const verify::ModelPair models = verify::open_models(setting.checkpoint, setting.precision);
  const Recording side = experiments::without_logits(setting);
  const auto measured = verify::measure_sequences(models, side.sequences, options);
  Count count;
  parallel_for(candidates, shared_loop_ns, [&](int i) {
    judge_one(models, side, first_seed + from + static_cast<std::uint64_t>(i), measured, options,
              count);
  });
  const double at_most = verify::most_probable(candidates, count.alarms, 0.95);
  std::printf(
      "%-22s %4d candidates  %3d alarms (at most %.2f %%)  %3d inconclusive  undecided "
      "%.1f %%  explained %.1f %%\n",
      setting.name().c_str(), candidates, count.alarms, 100 * at_most, count.inconclusive,
      100 * count.undecided / count.rows, 100 * count.explained / count.rows);
  for (const std::string& why : count.whys) std::printf("    %s\n", why.c_str());
  std::fflush(stdout);
  return {{"setting", setting.name()},
          {"precision", reference::name_of(setting.precision)},
          {"sequences", side.sequences.size()},
          {"rows", count.rows / candidates},
          {"candidates", candidates},
          {"alarms", count.alarms},
          {"at_most", at_most},
          {"inconclusive", count.inconclusive},
          {"undecided", count.undecided / count.rows},
          {"explained", count.explained / count.rows}};
}

int run(const std::vector<std::string>& names, const std::string& samples, int candidates,
        std::uint64_t from, const std::string& json, const verify::JudgeOptions& options,
        const std::string& command_line) {
  std::vector<Setting> settings;
  for (const std::string& name : names)
    settings.push_back(experiments::setting_named(samples, name));
  const Json rows = experiments::measure_each(
      settings, [&](const Setting& setting) { return measure(setting, candidates, from, options); },
      json, what, options, command_line);
  return experiments::sum_of(rows, "alarms") == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "false_alarms: how often does the judge reject what is right?\n\n"
      "Exit status: 0 no alarm, 1 alarms, 2 usage or bad input."};
  std::vector<std::string> names;
  std::string samples = "data/samples", json;
  int candidates = 200;
  std::uint64_t from = 0;
  verify::JudgeOptions options;
  options.runs = 8;
  app.add_option("SETTING", names, "SAMPLE:PRECISION, e.g. v32:hf-bf16")->required();
  app.add_option("--samples", samples, "Directory of samples")->capture_default_str();
  app.add_option("--candidates", candidates, "How many are drawn")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--from", from, "Skip so many candidates")->capture_default_str();
  app.add_option("--runs", options.runs, "Perturbed runs of each kind, of the judge")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--alpha", options.alpha, "The judge's: an alarm may be as frequent as this")
      ->check(CLI::Range(1e-12, 0.5))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of the judge's runs")->capture_default_str();
  app.add_option("--json", json, "Put the rows into this file; rows of other settings stay");
  CLI11_PARSE(app, argc, argv);
  const std::string command_line = cli::command_line_of("false_alarms", argc, argv);
  try {
    return run(names, samples, candidates, from, json, options, command_line);
  } catch (const std::exception& e) {
    std::cerr << "false_alarms: " << e.what() << "\n";
    return 2;
  }
}
