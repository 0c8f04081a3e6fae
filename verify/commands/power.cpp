#include "verify/power.hpp"

#include "verify/commands/command.hpp"

namespace dsa::verify {
namespace {

int run(const Arguments& a, const std::string& command_line) {
  Power result = power(a.checkpoint, a.golden, a.judge_options());
  result.receipt.command = command_line;
  print(table(result));
  write_if_asked(a.json, to_json(result).dump(2) + "\n");
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
  add_checkpoint(*app, *a);
  app->add_option("GOLDEN", a->golden, "Token ids with HuggingFace's logits or trace")->required();
  add_dtype(*app, *a, "GOLDEN");
  add_json(*app, *a, "the matrix");
  add_sampling(*app, *a);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
