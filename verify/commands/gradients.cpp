#include "verify/commands/judge_training.hpp"
#include "verify/gradients/judge.hpp"
#include "verify/gradients/report.hpp"

namespace dsa::verify {
namespace {

struct GradientArguments : Arguments {
  GradientOptions gradients;
};

int run(const GradientArguments& a, const std::string& command_line) {
  return run_and_report(a, command_line, [&](std::optional<reference::Precision> precision) {
    GradientOptions options = a.gradients;
    options.names = a.options.names;
    options.precision = precision;
    return judge_gradients(a.checkpoint, a.golden, a.candidate, options);
  });
}

}  // namespace

Command gradients_command(CLI::App& parent) {
  const auto a = std::make_shared<GradientArguments>();
  CLI::App* app = parent.add_subcommand(
      "gradients",
      "Judge the losses and gradients of GOLDEN, or of CANDIDATE, by the definition's own.\n"
      "Both are safetensors: tokens, loss.lm with lm.PARAMETER, loss.kl with kl.PARAMETER, ...;\n"
      "see data/README.md.");
  add_checkpoint(*app, *a);
  app->add_option("GOLDEN", a->golden, "Token ids with losses and gradients")->required();
  app->add_option("--candidate", a->candidate, "Losses and gradients of your training");
  app->add_option("--semantics", a->gradients.semantics,
                  "Whose reading of the indexer's loss: " + semantics_names());
  app->add_option("--loss", a->gradients.losses,
                  "Judge this loss only (lm, kl, mtp, balance; may be given again)");
  add_training_options(*app, *a, a->gradients, 4);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
