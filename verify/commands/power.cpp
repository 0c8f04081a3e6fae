#include "verify/diagnose/power.hpp"

#include "verify/commands/command.hpp"
#include "verify/diagnose/gradient_power.hpp"
#include "verify/diagnose/gradients.hpp"

namespace dsa::verify {
namespace {

int run_of_gradients(const Arguments& a, bool runs_given, const std::string& command_line) {
  require(a.options.dtype.empty(), "a file of gradients has no columns; leave out --dtype");
  GradientOptions options;
  const int runs = options.runs;
  static_cast<Draws&>(options) = a.options;
  if (!runs_given) options.runs = runs;
  if (!a.precision.empty()) options.precision = reference::precision_named(a.precision);
  GradientPower power = gradient_power(a.checkpoint, a.golden, options);
  power.receipt.command = command_line;
  write_if_asked(a.json, json_text(to_json(power)));
  write_if_asked(a.html, to_html(power));
  print(table(power, is_coloured()));
  return 0;
}

int run(const Arguments& a, bool runs_given, const std::string& command_line) {
  a.check_reports();
  if (!a.golden.empty() && holds_gradients(a.golden))
    return run_of_gradients(a, runs_given, command_line);
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
      "through logits, traces and decisions, or through losses and gradients, and how far above "
      "the\n"
      "limit; and what to add to see the rest. Exit status: 0, 2 usage or bad input.");
  CLI::Option* checkpoint =
      app->add_option("CHECKPOINT", a->checkpoint, "Directory with config.json and safetensors");
  CLI::Option* golden = app->add_option("GOLDEN", a->golden,
                                        "Token ids with HuggingFace's logits, trace or gradients");
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
  return {app, [=](const std::string& command_line) {
            return run(*a, app->get_option("--runs")->count() > 0, command_line);
          }};
}

}  // namespace dsa::verify
