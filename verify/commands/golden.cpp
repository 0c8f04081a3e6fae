#include "verify/commands/command.hpp"
#include "verify/commands/golden_text.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

struct GoldenArguments : Arguments {
  double max_kl_div = 0, atol = 0, rtol = 0;
};

/// The golden alone, by the reference; somebody's file; or a backend of ours.
Verdict judged(const GoldenArguments& a, JudgeOptions options) {
  const Checkpoint checkpoint(a.checkpoint, options);
  if (!a.candidate.empty())
    return judge(checkpoint, a.golden, std::filesystem::path(a.candidate), options);
  const EngineOptions engine = a.engine_options();
  const reference::Precision precision = precision_of(engine);
  if (engine.backend == "reference") return judge(checkpoint, a.golden, std::nullopt, options);
  if (!options.precision) options.precision = precision;
  return judge(checkpoint, a.golden, open_backend(checkpoint.stored, engine), options);
}

/// A limit of the user's, where there is one.
std::optional<double> limit_of(const CLI::App& app, const std::string& option, double value) {
  return app.count(option) ? std::optional(value) : std::nullopt;
}

int run(const GoldenArguments& a, const CLI::App& app, const std::string& command_line) {
  a.check_reports();
  JudgeOptions options = a.judge_options();
  options.max_kl_div = limit_of(app, "--max-kl-div", a.max_kl_div);
  options.atol = limit_of(app, "--atol", a.atol);
  options.rtol = limit_of(app, "--rtol", a.rtol);
  options.remarks = [&](const Recording& golden) { return remarks_on_text(a.checkpoint, golden); };
  Verdict verdict = judged(a, options);
  verdict.receipt.command = command_line;
  write_if_asked(a.json, json_text(to_json(verdict)));
  write_if_asked(a.junit, to_junit({verdict}));
  write_if_asked(a.html, to_html(verdict));
  print(table(verdict, is_coloured()));
  return exit_code(verdict.outcome);
}

}  // namespace

Command golden_command(CLI::App& parent) {
  const auto a = std::make_shared<GoldenArguments>();
  CLI::App* app = parent.add_subcommand(
      "golden",
      "Judge GOLDEN (alone), or CANDIDATE, or a backend of ours, by GOLDEN and by the definition.\n"
      "GOLDEN and FILE are safetensors (tokens, logits.fp64|fp32|bf16 or logits, attention_mask,\n"
      "traces under HuggingFace module names) or MaxText JSON lines; see data/README.md.");
  add_checkpoint(*app, *a);
  app->add_option("GOLDEN", a->golden, "Token ids with HuggingFace's logits or trace")->required();
  auto* candidate = app->add_option("--candidate", a->candidate,
                                    "Logits or trace of the implementation to be judged");
  add_backend(*app, *a, "Which of ours is held against GOLDEN")->excludes(candidate);
  add_dtype(*app, *a, "GOLDEN");
  add_precision(*app, *a);
  add_conventions(*app, *a);
  add_names(*app, *a);
  app->add_option("--layers", a->layers, "Verify the span A:B of layers only (needs a trace)");
  cli::add_real(*app, "--max-kl-div,--max_kl_div", a->max_kl_div, {},
                "A limit of yours on the KL divergence of every row, in place of ours");
  cli::add_real(*app, "--atol", a->atol, {},
                "A limit of yours: |got - want| <= atol + rtol |want|");
  cli::add_real(*app, "--rtol", a->rtol, {}, "See --atol");
  app->add_flag("--explain-limit", a->options.explain_limit,
                "Also print what the limit of every row and tensor is made of");
  app->add_flag("--own-error", a->options.own_error,
                "Also run the reference in long double and state its own rounding error");
  add_json(*app, *a, "the verdict");
  app->add_option("--junit", a->junit, "Write it as JUnit XML to this file");
  add_html(*app, *a);
  add_sampling(*app, a->options);
  return {app, [=](const std::string& command_line) { return run(*a, *app, command_line); }};
}

}  // namespace dsa::verify
