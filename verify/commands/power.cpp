#include "verify/diagnose/power.hpp"

#include "verify/commands/command.hpp"

namespace dsa::verify {
namespace {

int run(const Arguments& a, const std::string& command_line) {
  a.check_reports();
  std::vector<Power> goldens;
  if (!a.samples.empty()) {
    goldens = power_of_samples(a.samples, a.judge_options());
  } else {
    require(!a.golden.empty(),
            "power needs CHECKPOINT and GOLDEN, or --samples and a directory of them");
    goldens = {power(a.checkpoint, a.golden, a.judge_options())};
  }
  for (Power& golden : goldens) golden.receipt.command = command_line;
  write_if_asked(a.json, json_text(to_json(goldens)));
  write_if_asked(a.html, to_html(goldens));
  print(table(goldens, is_coloured()));
  return 0;
}

}  // namespace

Command power_command(CLI::App& parent) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = parent.add_subcommand(
      "power",
      "The detection matrix of GOLDEN: which known defects (docs/defects.md) it would catch,\n"
      "through logits, traces and decisions, and how far above the limit; and what to add to see\n"
      "the rest. Exit status: 0, 2 usage or bad input.");
  CLI::Option* checkpoint =
      app->add_option("CHECKPOINT", a->checkpoint, "Directory with config.json and safetensors");
  CLI::Option* golden =
      app->add_option("GOLDEN", a->golden, "Token ids with HuggingFace's logits or trace");
  app->add_option("--samples", a->samples,
                  "All goldens under this directory together: NAME/checkpoint with\n"
                  "NAME/*.safetensors beside it, the most precise column of each")
      ->excludes(checkpoint)
      ->excludes(golden);
  add_dtype(*app, *a, "GOLDEN");
  app->add_option("--precision", a->precision,
                  "How candidates are computed, whose limits then count: " +
                      reference::precision_names() + "\n(default: as the golden)");
  add_json(*app, *a, "the matrix");
  add_html(*app, *a);
  add_sampling(*app, a->options);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
