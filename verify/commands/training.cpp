#include <chrono>

#include "verify/commands/command.hpp"
#include "verify/report/report.hpp"
#include "verify/training/judge.hpp"
#include "verify/training/report.hpp"

namespace dsa::verify {
namespace {

struct TrainingArguments : Arguments {
  TrainingOptions training;
};

int run(const TrainingArguments& a, const std::string& command_line) {
  a.check_reports();
  TrainingOptions options = a.training;
  if (!a.precision.empty()) options.precision = reference::precision_named(a.precision);
  const auto start = std::chrono::steady_clock::now();
  TrainingVerdict verdict = judge_training(a.checkpoint, a.golden, a.candidate, options);
  verdict.receipt.command = command_line;
  verdict.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_if_asked(a.json, json_text(to_json(verdict)));
  write_if_asked(a.junit, to_junit(verdict));
  write_if_asked(a.html, to_html(verdict));
  print(table(verdict, is_coloured()));
  return exit_code(verdict.outcome);
}

}  // namespace

Command training_command(CLI::App& parent) {
  const auto a = std::make_shared<TrainingArguments>();
  CLI::App* app = parent.add_subcommand(
      "training",
      "Take the optimiser's steps of TRAJECTORY again by its recipe, and judge its losses,\n"
      "gradient norms, rates and final parameters, or those of CANDIDATE. Both are safetensors:\n"
      "tokens (N, B, S), loss.lm, loss.kl, grad_norm, lr (N), final.PARAMETER; docs/judging_training.md.");
  add_checkpoint(*app, *a);
  app->add_option("TRAJECTORY", a->golden, "Batches of token ids with what a run of them printed")
      ->required();
  app->add_option("--candidate", a->candidate, "The same of your training");
  app->add_option("--recipe", a->training.recipe,
                  "How TRAJECTORY was trained, as JSON (docs/judging_training.md; default: its metadata,\n"
                  "else what its shape and its first steps say)");
  app->add_option("--precision", a->precision,
                  "How what is judged was computed: fp64, hf-fp32 or hf-bf16\n"
                  "(default: what its numbers look like)");
  cli::add_integer(*app, "--runs", a->training.runs, {2, 1000}, "Perturbed runs behind each limit")
      ->capture_default_str();
  cli::add_seed(*app, a->training.seed, "Seed of the perturbed runs")->capture_default_str();
  cli::add_real(*app, "--alpha", a->training.alpha, {1e-12, 0.5},
                "Probability of rejecting what is right, over all checks of a judgement")
      ->capture_default_str();
  add_json(*app, *a, "the verdict");
  app->add_option("--junit", a->junit, "Write it as JUnit XML to this file");
  add_html(*app, *a);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
