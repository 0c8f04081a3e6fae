#include <chrono>

#include "verify/commands/command.hpp"
#include "verify/gradients/judge.hpp"
#include "verify/gradients/report.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

struct GradientArguments : Arguments {
  GradientOptions gradients;
};

int run(const GradientArguments& a, const std::string& command_line) {
  a.check_reports();
  GradientOptions options = a.gradients;
  if (!a.precision.empty()) options.precision = reference::precision_named(a.precision);
  const auto start = std::chrono::steady_clock::now();
  GradientVerdict verdict = judge_gradients(a.checkpoint, a.golden, a.candidate, options);
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
  app->add_option("--precision", a->precision,
                  "How what is judged was computed: fp64, hf-fp32 or hf-bf16\n"
                  "(default: what its numbers look like)");
  app->add_option("--semantics", a->gradients.semantics,
                  "Whose reading of the indexer's loss: " + semantics_names());
  app->add_option("--loss", a->gradients.losses,
                  "Judge this loss only (lm, kl, mtp, balance; may be given again)");
  cli::add_integer(*app, "--runs", a->gradients.runs, {4, 1000}, "Perturbed runs behind each limit")
      ->capture_default_str();
  cli::add_seed(*app, a->gradients.seed, "Seed of the perturbed runs")->capture_default_str();
  cli::add_real(*app, "--alpha", a->gradients.alpha, {1e-12, 0.5},
                "Probability of rejecting what is right, over all checks of a judgement")
      ->capture_default_str();
  add_json(*app, *a, "the verdict");
  app->add_option("--junit", a->junit, "Write it as JUnit XML to this file");
  add_html(*app, *a);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
