// verify/commands/judge_training.hpp — what `gradients` and `training` do alike.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "verify/commands/command.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {

/// Calls judge(precision) and reports its verdict as the user asked. Returns the exit code.
template <class Judge>
int run_and_report(const Arguments& a, const std::string& command_line, const Judge& judge) {
  a.check_reports();
  std::optional<reference::Precision> precision;
  if (!a.precision.empty()) precision = reference::precision_named(a.precision);
  const auto start = std::chrono::steady_clock::now();
  auto verdict = judge(precision);
  verdict.receipt.command = command_line;
  verdict.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_if_asked(a.json, json_text(to_json(verdict)));
  write_if_asked(a.junit, to_junit(verdict));
  write_if_asked(a.html, to_html(verdict));
  print(table(verdict, is_coloured()));
  return exit_code(verdict.outcome);
}

/// --precision, --names, the reports, and how perturbed runs are drawn.
inline void add_training_options(CLI::App& app, Arguments& a, Draws& draws, int least_runs) {
  app.add_option("--precision", a.precision,
                 "How what is judged was computed: fp64, hf-fp32 or hf-bf16\n"
                 "(default: what its numbers look like)");
  app.add_option("--names", a.options.names,
                 "Whose names the judged side's parameters have: maxtext, megatron, or a map of\n"
                 "yours (docs/judging_training.md); HuggingFace's need none");
  add_sampling(app, draws, least_runs);
  add_json(app, a, "the verdict");
  app.add_option("--junit", a.junit, "Write it as JUnit XML to this file");
  add_html(app, a);
}

}  // namespace dsa::verify
