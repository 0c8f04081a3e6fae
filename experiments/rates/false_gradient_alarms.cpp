// experiments/rates/false_gradient_alarms.cpp — how often `dsa-verify gradients` rejects what is
// right.
//
// For a sample of data/gradients and a precision, candidates are drawn: forward and backward passes
// of the reference with the roundings of that precision at random, decisions falling as they may,
// seeds that the judge never uses. Each is one loss with all of its gradients. All are right, so
// whatever is judged wrong is a false alarm. The judge's limits are measured once a loss.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <map>
#include <mutex>

#include "cli/program.hpp"
#include "core/checkpoint.hpp"
#include "core/threads.hpp"
#include "experiments/rates/common.hpp"
#include "verify/gradients/judge.hpp"
#include "verify/gradients/limits.hpp"
#include "verify/measure/stats.hpp"

namespace {

using namespace dsa;
using experiments::Setting;

/// The judge's draws are its seed and the numbers behind it; the candidates' begin here.
constexpr std::uint64_t first_seed = 0xCA4D1DA7E0000;

/// One sentence a reading needs to be believed.
constexpr const char* what =
    "Gradients drawn with the roundings of a precision, all of them right; alarms: how many the "
    "judge rejects. at_most: the rate's upper bound at 95 % confidence (Clopper-Pearson, "
    "one-sided). worst: the largest error over allowed of all candidates";

struct Count {
  int alarms = 0;
  double worst = 0;
  std::vector<std::string> whys;
  std::mutex mutex;  // of all of these
};

/// A loss of the sample, with the judge's limits.
struct Judged {
  verify::GradientVariant right;
  verify::GradientPass base;
  verify::GradientLimits limits;

  Judged(const std::string& loss, const verify::GradientStage& stage,
         reference::Precision precision, const verify::Draws& draws, double tail)
      : right(verify::variant_of(loss, stage)),
        base(verify::run_backward(right)),
        limits(right, base, verify::draw_gradients(loss, stage, base, precision, draws), precision,
               tail) {}

  /// The worst error over allowed of the loss and its gradients, as the judge measures them.
  std::pair<double, std::string> worst_of(const verify::GradientPass& candidate) const {
    const double of_loss = std::abs(candidate.loss - base.loss) / limits.of_loss();
    std::pair<double, std::string> worst = {of_loss, "loss." + right.loss};
    std::map<std::string, const verify::Values*> by_name;
    for (const auto& [name, values] : candidate.gradients) by_name[name] = &values;
    for (std::size_t p = 0; p < base.gradients.size(); ++p) {
      const auto& [name, want] = base.gradients[p];
      const verify::Values& got = *by_name.at(name);
      double mine = verify::norm(got) > 0 ? std::numeric_limits<double>::infinity() : 0;
      if (verify::norm(want) > 0) mine = limits.measured(p, {Dtype::f32, got}).worst_over_allowed;
      if (mine > worst.first) worst = {mine, right.loss + "." + name};
    }
    return worst;
  }
};

void judge_one(const Judged& judged, const verify::GradientStage& stage,
               reference::Precision precision, std::uint64_t seed, Count& count) {
  const auto [worst, name] = judged.worst_of(
      verify::run_backward(verify::variant_of(judged.right.loss, stage, {precision, seed})));
  const std::lock_guard lock(count.mutex);
  count.worst = std::max(count.worst, worst);
  if (worst <= 1) return;
  ++count.alarms;
  char text[160];
  std::snprintf(text, sizeof text, "candidate %llu: %s, %.3g times its limit",
                static_cast<unsigned long long>(seed - first_seed), name.c_str(), worst);
  count.whys.push_back(text);
}

Json measure(const Setting& setting, int candidates, const verify::GradientOptions& options) {
  const Model model = resident(open_checkpoint(setting.checkpoint), Index{1} << 30);
  const verify::GradientFile file = verify::read_gradients(setting.golden, model.config);
  const verify::GradientStage stage = verify::stage_of(model, file, {}, file);
  Index parameters = 0;
  for_each_tensor(model.weights, model.config, [&](auto&&...) { ++parameters; });
  const double tail =
      options.alpha / static_cast<double>(2 * parameters * static_cast<Index>(file.losses.size()));
  Count count;
  int drawn = 0;
  for (const auto& [loss, value] : file.losses) {
    const Judged judged(loss, stage, setting.precision, options, tail);
    parallel_for(candidates, shared_loop_ns, [&, n = drawn](int i) {
      judge_one(judged, stage, setting.precision, first_seed + static_cast<std::uint64_t>(n + i),
                count);
    });
    drawn += candidates;
  }
  const double at_most = verify::most_probable(drawn, count.alarms, 0.95);
  std::printf("%-20s %4d candidates  %3d alarms (at most %.2f %%)  worst over allowed %.3g\n",
              setting.name().c_str(), drawn, count.alarms, 100 * at_most, count.worst);
  for (const std::string& why : count.whys) std::printf("    %s\n", why.c_str());
  std::fflush(stdout);
  return {{"setting", setting.name()},    {"precision", reference::name_of(setting.precision)},
          {"losses", file.losses.size()}, {"candidates", drawn},
          {"alarms", count.alarms},       {"at_most", at_most},
          {"worst", count.worst}};
}

int run(const std::vector<std::string>& names, const std::string& samples, int candidates,
        const std::string& json, const verify::GradientOptions& options,
        const std::string& command_line) {
  std::vector<Setting> settings;
  for (const std::string& name : names)
    settings.push_back(experiments::setting_named(samples, name, "gradients.sparse.safetensors"));
  const Json rows = experiments::measure_each(
      settings, [&](const Setting& setting) { return measure(setting, candidates, options); }, json,
      what, options, command_line);
  return experiments::sum_of(rows, "alarms") == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "false_gradient_alarms: how often does the judge of gradients reject what is right?\n\n"
      "Exit status: 0 no alarm, 1 alarms, 2 usage or bad input."};
  std::vector<std::string> names;
  std::string samples = "data/gradients", json;
  int candidates = 50;
  verify::GradientOptions options;
  app.add_option("SETTING", names, "SAMPLE:PRECISION, e.g. v32calm:hf-bf16")->required();
  app.add_option("--samples", samples, "Directory of samples")->capture_default_str();
  app.add_option("--candidates", candidates, "How many are drawn of each loss")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--runs", options.runs, "Perturbed runs of the judge")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--alpha", options.alpha, "The judge's: an alarm may be as frequent as this")
      ->check(CLI::Range(1e-12, 0.5))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of the judge's runs")->capture_default_str();
  app.add_option("--json", json, "Put the rows into this file; rows of other settings stay");
  CLI11_PARSE(app, argc, argv);
  const std::string command_line = cli::command_line_of("false_gradient_alarms", argc, argv);
  try {
    return run(names, samples, candidates, json, options, command_line);
  } catch (const std::exception& e) {
    std::cerr << "false_gradient_alarms: " << e.what() << "\n";
    return 2;
  }
}
