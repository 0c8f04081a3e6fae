#include "verify/commands/command.hpp"

#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "core/file.hpp"
#include "core/outputs.hpp"
#include "core/words.hpp"

namespace dsa::verify {
namespace {

std::pair<Index, Index> span_of(const std::string& text) {
  long long begin = 0, end = 0;
  char rest = 0;
  require(std::sscanf(text.c_str(), "%lld:%lld%c", &begin, &end, &rest) == 2,
          "--layers \"" + text + "\" is not a span; give A:B, e.g. 0:2");
  return {begin, end};
}

}  // namespace

JudgeOptions Arguments::judge_options() const {
  JudgeOptions judge = options;
  if (!precision.empty()) judge.precision = reference::precision_named(precision);
  if (!layers.empty()) judge.layers = span_of(layers);
  judge.latent_eps_of_config = latent_eps == "config";
  judge.progress = cli::progress();
  return judge;
}

EngineOptions Arguments::engine_options() const {
  EngineOptions parsed = engine.parsed();
  if (parsed.backend == "reference" && !engine.has("--format")) parsed.format = "fp64";
  return parsed;
}

void Arguments::check_reports() const {
  check_outputs({json, junit, html}, {checkpoint, golden, candidate, options.names});
}

void add_checkpoint(CLI::App& app, Arguments& a) {
  app.add_option("CHECKPOINT", a.checkpoint, "Directory with config.json and safetensors")
      ->required();
}

CLI::Option* add_backend(CLI::App& app, Arguments& a, const std::string& what) {
  a.engine.describe(app, judged_backends());
  app.get_option("--format")
      ->description(
          "What a backend other than the reference, which is fp64, computes in: fp32,\n"
          "bf16 or fp8");
  return app.get_option("--backend")->description(what + ": " + alternatives(judged_backends()));
}

void add_dtype(CLI::App& app, Arguments& a, const std::string& of) {
  app.add_option("--dtype", a.options.dtype,
                 "Column of " + of + ": fp64, fp32 or bf16 (default: the most precise)")
      ->check(CLI::IsMember({"fp64", "fp32", "bf16"}));
}

void add_precision(CLI::App& app, Arguments& a) {
  app.add_option(
      "--precision", a.precision,
      "How the judged side was computed: " + reference::precision_names() +
          "\n(default: the dtype of its file; a bf16 run stored as F32 needs it).\n"
          "hf-bf16 has the indexer's weights_proj in fp32, as DeepSeek's code does; logits\n"
          "of transformers 5.23, which casts every parameter, and of 5.24, which keeps\n"
          "mlp.gate.weight, are judged by the same limits");
}

void add_conventions(CLI::App& app, Arguments& a) {
  app.add_option(
         "--latent-eps", a.latent_eps,
         "eps of the latents' norms: transformers has 1e-6 whatever the config says; vLLM,\n"
         "SGLang, Megatron and llama.cpp take the config's rms_norm_eps")
      ->check(CLI::IsMember({"transformers", "config"}))
      ->capture_default_str();
}

void add_names(CLI::App& app, Arguments& a) {
  app.add_option("--names", a.options.names,
                 "Whose names the judged side's tensors have: huggingface, llama.cpp, maxtext,\n"
                 "megatron, or a name map of yours (docs/localise.md)");
}

void add_sampling(CLI::App& app, Draws& draws, int least) {
  cli::add_integer(app, "--runs", draws.runs, {least, 1024},
                   "Perturbed runs of each kind, from which limits come")
      ->capture_default_str();
  cli::add_seed(app, draws.seed, "Seed of the perturbed runs")->capture_default_str();
  cli::add_real(app, "--alpha", draws.alpha, {1e-12, 0.5},
                "Probability of rejecting a right result, over all checks of a judgement")
      ->capture_default_str();
}

void add_json(CLI::App& app, Arguments& a, const std::string& what) {
  app.add_option("--json", a.json, "Write " + what + " as JSON (docs/report.md) to this file");
}

void add_html(CLI::App& app, Arguments& a) {
  app.add_option("--html", a.html, "Write it as one self-contained HTML page to this file");
}

bool is_coloured() { return isatty(STDOUT_FILENO); }

void print(const std::string& text) {
  cli::end_progress();
  std::cout << text;
}

void write_if_asked(const std::string& file, const std::string& text) {
  if (!file.empty()) write_text(file, text);
}

}  // namespace dsa::verify
