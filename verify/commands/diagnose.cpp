#include "verify/diagnose/diagnose.hpp"

#include "verify/commands/command.hpp"

namespace dsa::verify {
namespace {

int run(const Arguments& a, const std::string& command_line) {
  a.check_reports();
  Diagnosis diagnosis = diagnose(a.checkpoint, a.candidate, a.judge_options());
  diagnosis.receipt.command = command_line;
  write_if_asked(a.json, json_text(to_json(diagnosis)));
  write_if_asked(a.html, to_html(diagnosis));
  print(table(diagnosis, is_coloured()));
  return exit_code(diagnosis);
}

}  // namespace

Command diagnose_command(CLI::App& parent) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = parent.add_subcommand(
      "diagnose",
      "Run the reference with every known defect in turn (docs/defects.md), and name the one, or\n"
      "the pair, under which nothing of CANDIDATE is left beyond its noise. CANDIDATE holds its\n"
      "tokens. Exit status: 0 correct, 1 a defect or unknown, 2 usage or bad input, 3 rounding "
      "may\n"
      "have turned too many decisions for anything to be shown.");
  add_checkpoint(*app, *a);
  app->add_option("CANDIDATE", a->candidate, "Tokens with somebody's logits or trace")->required();
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
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
