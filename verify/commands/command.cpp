#include "verify/commands/command.hpp"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "core/file.hpp"
#include "core/outputs.hpp"

namespace dsa::verify {
namespace {

std::pair<Index, Index> span_of(const std::string& text) {
  long long begin = 0, end = 0;
  char rest = 0;
  require(std::sscanf(text.c_str(), "%lld:%lld%c", &begin, &end, &rest) == 2,
          "--layers \"" + text + "\" is not a span; give A:B, e.g. 0:2");
  return {begin, end};
}

/// "golden, sequence 1 of 2  [#####     ] 12/32", over and over on one line of a terminal.
void show_progress(const std::string& what, int done, int of) {
  constexpr int width = 24;
  std::string bar(static_cast<std::size_t>(width * done / std::max(of, 1)), '#');
  bar.resize(width, ' ');
  std::fprintf(stderr, "\r\033[K%s  [%s] %d/%d", what.c_str(), bar.c_str(), done, of);
  std::fflush(stderr);
}

}  // namespace

JudgeOptions Arguments::judge_options() const {
  require(!std::isnan(options.alpha), "--alpha is nan, expected a probability up to 0.5");
  JudgeOptions judge = options;
  if (!precision.empty()) judge.precision = reference::precision_named(precision);
  if (!layers.empty()) judge.layers = span_of(layers);
  if (isatty(STDERR_FILENO)) judge.progress = show_progress;
  return judge;
}

void Arguments::check_reports() const {
  check_outputs({json, junit, html}, {checkpoint, golden, candidate, options.names});
}

void add_checkpoint(CLI::App& app, Arguments& a) {
  app.add_option("CHECKPOINT", a.checkpoint, "Directory with config.json and safetensors")
      ->required();
}

CLI::Option* add_backend(CLI::App& app, Arguments& a, const std::string& what) {
  CLI::Option* backend =
      app.add_option("--backend", a.backend.name, what + ": " + judged_backends())
          ->capture_default_str();
  app.add_option(
      "--format", a.backend.format,
      "What a backend other than the reference computes in:\nfp32 (default), bf16 or fp8");
  app.add_option("--cpu", a.backend.tier,
                 "Instructions of the backend cpu: portable, avx2, avx512, avx512-bf16 or amx\n"
                 "(default: the best that this machine has)");
  app.add_option("--mla", a.backend.mla,
                 "Form of dense attention of the backend cpu: automatic (default), absorbed or\n"
                 "expanded");
  return backend;
}

void add_dtype(CLI::App& app, Arguments& a, const std::string& of) {
  app.add_option("--dtype", a.options.dtype,
                 "Column of " + of + ": fp64, fp32 or bf16 (default: the most precise)")
      ->check(CLI::IsMember({"fp64", "fp32", "bf16"}));
}

void add_precision(CLI::App& app, Arguments& a) {
  app.add_option("--precision", a.precision,
                 "How the judged side was computed: " + reference::precision_names() +
                     "\n(default: the dtype of its file; a bf16 run stored as F32 needs it)");
}

void add_names(CLI::App& app, Arguments& a) {
  app.add_option("--names", a.options.names,
                 "Whose names the judged side's trace has: huggingface, llama.cpp, maxtext,\n"
                 "megatron, or a name map of yours (docs/localise.md)");
}

void add_sampling(CLI::App& app, Arguments& a) {
  app.add_option("--runs", a.options.runs, "Perturbed runs of each kind, from which limits come")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", a.options.seed, "Seed of the perturbed runs")->capture_default_str();
  app.add_option("--alpha", a.options.alpha,
                 "Probability of rejecting a right result, over all checks of a judgement")
      ->check(CLI::Range(1e-12, 0.5))
      ->capture_default_str();
}

void add_json(CLI::App& app, Arguments& a, const std::string& what) {
  app.add_option("--json", a.json, "Write " + what + " as JSON (docs/report.md) to this file");
}

void add_html(CLI::App& app, Arguments& a) {
  app.add_option("--html", a.html, "Write it as one self-contained HTML page to this file");
}

bool is_coloured() { return isatty(STDOUT_FILENO); }

void clear_progress() {
  if (isatty(STDERR_FILENO)) std::fprintf(stderr, "\r\033[K");
}

void print(const std::string& text) {
  clear_progress();
  std::cout << text;
}

void write_if_asked(const std::string& file, const std::string& text) {
  if (!file.empty()) write_text(file, text);
}

}  // namespace dsa::verify
