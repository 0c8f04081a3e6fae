#include "verify/judge/samples.hpp"

#include "verify/commands/command.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

int run(const Arguments& a, const std::string& command_line) {
  a.check_reports();
  std::vector<Verdict> verdicts;
  JudgeOptions options = a.judge_options();
  for (const Sample& sample : find_samples(a.samples)) {
    options.dtype = sample.dtype;
    verdicts.push_back(judge(sample.checkpoint, sample.golden, std::nullopt, options));
    verdicts.back().receipt.command = command_line;
    if (!sample.dtype.empty()) verdicts.back().golden += " (" + sample.dtype + ")";
  }
  print(summary_table(verdicts, is_coloured()));
  write_if_asked(a.json, to_json(verdicts).dump(2) + "\n");
  write_if_asked(a.junit, to_junit(verdicts));
  write_if_asked(a.html, to_html(verdicts));
  return exit_code(outcome_of_samples(verdicts));
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
  add_sampling(*app, *a);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
