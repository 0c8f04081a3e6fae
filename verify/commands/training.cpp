#include "verify/commands/judge_training.hpp"
#include "verify/training/judge.hpp"
#include "verify/training/report.hpp"

namespace dsa::verify {
namespace {

struct TrainingArguments : Arguments {
  TrainingOptions training;
};

int run(const TrainingArguments& a, const std::string& command_line) {
  return run_and_report(a, command_line, [&](std::optional<reference::Precision> precision) {
    TrainingOptions options = a.training;
    options.names = a.options.names;
    options.precision = precision;
    return judge_training(a.checkpoint, a.golden, a.candidate, options);
  });
}

}  // namespace

Command training_command(CLI::App& parent) {
  const auto a = std::make_shared<TrainingArguments>();
  CLI::App* app = parent.add_subcommand(
      "training",
      "Take the optimiser's steps of TRAJECTORY again by its recipe, and judge its losses,\n"
      "gradient norms, rates and final parameters, or those of CANDIDATE. Both are safetensors:\n"
      "tokens (N, B, S), loss.lm, loss.kl, grad_norm, lr (N), final.PARAMETER; "
      "docs/judging_training.md.");
  add_checkpoint(*app, *a);
  app->add_option("TRAJECTORY", a->golden, "Batches of token ids with what a run of them printed")
      ->required();
  app->add_option("--candidate", a->candidate, "The same of your training");
  app->add_option(
      "--recipe", a->training.recipe,
      "How TRAJECTORY was trained, as JSON (docs/judging_training.md; default: its metadata,\n"
      "else what its shape and its first steps say)");
  add_training_options(*app, *a, a->training, 2);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
