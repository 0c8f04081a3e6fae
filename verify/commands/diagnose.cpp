#include "verify/diagnose/diagnose.hpp"

#include "verify/commands/command.hpp"
#include "verify/diagnose/gradients.hpp"

namespace dsa::verify {
namespace {

struct DiagnoseArguments : Arguments {
  std::string first;  // the candidate; with --candidate: the golden
  GradientOptions gradients;
};

template <class Diagnosis>
int report(const Arguments& a, Diagnosis diagnosis, const std::string& command_line) {
  diagnosis.receipt.command = command_line;
  write_if_asked(a.json, json_text(to_json(diagnosis)));
  write_if_asked(a.html, to_html(diagnosis));
  print(table(diagnosis, is_coloured()));
  return exit_code(diagnosis);
}

int run(DiagnoseArguments a, bool runs_given, const std::string& command_line) {
  const bool with_golden = !a.candidate.empty();
  (with_golden ? a.golden : a.candidate) = a.first;
  a.check_reports();
  if (!holds_gradients(a.candidate)) {
    require(!with_golden,
            a.candidate +
                " holds logits or a trace, which are diagnosed by the definition alone; "
                "give CHECKPOINT and the file without --candidate");
    return report(a, diagnose(a.checkpoint, a.candidate, a.judge_options()), command_line);
  }
  require(a.options.dtype.empty(), "a file of gradients has no columns; leave out --dtype");
  GradientOptions options = a.gradients;
  options.names = a.options.names;
  const int runs = options.runs;
  static_cast<Draws&>(options) = a.options;
  if (!runs_given) options.runs = runs;
  if (!a.precision.empty()) options.precision = reference::precision_named(a.precision);
  return report(a, diagnose_gradients(a.checkpoint, a.golden, a.candidate, options), command_line);
}

}  // namespace

Command diagnose_command(CLI::App& parent) {
  const auto a = std::make_shared<DiagnoseArguments>();
  CLI::App* app = parent.add_subcommand(
      "diagnose",
      "Run the reference with every known defect in turn (docs/defects.md), and name the one, or\n"
      "the pair, under which nothing of CANDIDATE is left beyond its noise. CANDIDATE holds its\n"
      "tokens, with logits, a trace, or losses and gradients. Exit status: 0 correct, 1 a defect "
      "or\n"
      "unknown, 2 usage or bad input, 3 rounding may have turned too many decisions for anything "
      "to\n"
      "be shown.");
  add_checkpoint(*app, *a);
  app->add_option(
         "CANDIDATE", a->first,
         "Tokens with somebody's logits, trace or gradients; with --candidate, the golden\n"
         "gradients instead")
      ->required();
  app->add_option("--candidate", a->candidate,
                  "Losses and gradients to diagnose, of the stage of training that the golden has");
  app->add_option(
      "--semantics", a->gradients.semantics,
      "Whose reading of the indexer's loss the gradients should have: " + semantics_names());
  add_dtype(*app, *a, "CANDIDATE");
  add_precision(*app, *a);
  add_conventions(*app, *a);
  add_names(*app, *a);
  app->add_option(
      "--weights-of", a->options.weights_of,
      "Another checkpoint of the same shapes, e.g. the base of an adapter: also try its\n"
      "weights, one module at a time");
  add_json(*app, *a, "the diagnosis");
  add_html(*app, *a);
  add_sampling(*app, a->options);
  return {app, [=](const std::string& command_line) {
            return run(*a, app->get_option("--runs")->count() > 0, command_line);
          }};
}

}  // namespace dsa::verify
