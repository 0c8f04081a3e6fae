#include "verify/localise/localise.hpp"

#include "verify/commands/command.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

struct LocaliseArguments : Arguments {
  std::string forward;
};

int run(const LocaliseArguments& a, const std::string& command_line) {
  check_outputs({a.json}, {a.checkpoint, a.candidate, a.forward, a.options.names});
  Localisation localisation = localise(a.checkpoint, a.candidate, a.judge_options(), a.forward);
  localisation.receipt.command = command_line;
  write_if_asked(a.json, json_text(to_json(localisation)));
  print(table(localisation, is_coloured()));
  return exit_code(localisation.outcome);
}

}  // namespace

Command localise_command(CLI::App& parent) {
  const auto a = std::make_shared<LocaliseArguments>();
  CLI::App* app = parent.add_subcommand(
      "localise",
      "Name the ops of CANDIDATE's implementation that are wrong by themselves: every op of the\n"
      "reference is fed what CANDIDATE's trace says it was fed (docs/localise.md; "
      "python/dsa/trace/\n"
      "writes traces). With logits only, narrow it down and say what to dump. Gradients (d.NAME)\n"
      "in CANDIDATE: the same, of the backward pass of the language-model loss. Exit status: 0\n"
      "nothing departs, 1 something does, 2 usage or bad input, 3 inconclusive.");
  add_checkpoint(*app, *a);
  app->add_option("CANDIDATE", a->candidate, "Tokens with somebody's trace, or logits")->required();
  app->add_option("--forward", a->forward,
                  "Forward trace of the same run, where CANDIDATE holds gradients alone");
  add_dtype(*app, *a, "CANDIDATE");
  add_precision(*app, *a);
  add_conventions(*app, *a);
  add_names(*app, *a);
  add_json(*app, *a, "the localisation");
  add_sampling(*app, a->options);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
