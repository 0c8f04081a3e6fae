#include "verify/judge/samples.hpp"

#include "verify/commands/command.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

int run_samples(const Arguments& a, const std::string& command_line) {
  a.check_reports();
  Summary summary{a.samples, {}};
  JudgeOptions options = a.judge_options();
  const cli::Progress all = options.progress;
  const std::vector<Sample> samples = find_samples(a.samples);
  const auto n = static_cast<int>(samples.size());
  for (int i = 0; i < n; ++i) {
    const Sample& sample = samples[static_cast<std::size_t>(i)];
    options.dtype = sample.dtype;
    options.progress =
        cli::part_of(all, sample.golden.lexically_relative(a.samples).string(), i, n);
    Verdict verdict = judge(sample.checkpoint, sample.golden, std::nullopt, options);
    verdict.receipt.command = command_line;
    if (!sample.dtype.empty()) verdict.golden += " (" + sample.dtype + ")";
    summary.verdicts.push_back(std::move(verdict));
  }
  summary.outcome = outcome_of_samples(summary.verdicts);
  write_if_asked(a.json, json_text(to_json(summary)));
  write_if_asked(a.junit, to_junit(summary.verdicts));
  write_if_asked(a.html, to_html(summary));
  print(table(summary, is_coloured()));
  return exit_code(summary.outcome);
}

}  // namespace

Command samples_command(CLI::App& parent) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = parent.add_subcommand(
      "samples",
      "Judge every golden under DIR: NAME/checkpoint with NAME/*.safetensors beside it.");
  app->add_option("DIR", a->samples, "Directory of samples")->required();
  add_json(*app, *a, "the verdicts");
  app->add_option("--junit", a->junit, "Write them as JUnit XML to this file");
  add_html(*app, *a);
  add_sampling(*app, a->options);
  return {app, [=](const std::string& command_line) { return run_samples(*a, command_line); }};
}

}  // namespace dsa::verify
