#include "run/logits.hpp"

#include <iostream>
#include <memory>

#include "core/check.hpp"
#include "core/outputs.hpp"
#include "optimized/engine/arguments.hpp"
#include "run/commands/command.hpp"

namespace dsa::run {
namespace {

constexpr const char* about = R"(
Computes the logits of every token of FILE and writes them to OUT, with the tokens:
safetensors (tokens, attention_mask, logits (B, S, V) in F32; shorter sequences are padded on the
right), or MaxText's JSON lines where OUT ends in .jsonl (which are held in memory until written).

FILE holds token ids: JSON ([[1, 2, 3], [4, 5]]), JSON lines ({"tokens": [1, 2, 3]} a line; other
keys are ignored), or safetensors (tokens (B, S), attention_mask).

  fp32  F32 weights, activations and caches
  bf16  BF16 weights, inputs of products and caches; sums, residual stream and norms in F32
  fp8   as bf16, with the official code's FP8 caches: latents of 656 bytes a token at V3.2's sizes,
        index keys rotated by a Hadamard matrix, of 132

The model is loaded once, wholly; tokens go through in passes of --chunk, whose memory does not
depend on how many came before. --plan says what all of it takes, and loads nothing.

Example: dsa-run logits models/v32 --tokens prompts.json -o out.safetensors --format bf16)";

struct Arguments {
  LogitsJob job;
  EngineArguments engine;
};

int run(const Arguments& a) {
  LogitsJob job = a.job;
  require(job.plan_only || !job.out.empty(), "--out is required; name the file to write");
  check_outputs({job.out}, {job.checkpoint, job.tokens});
  job.progress = cli::progress();
  const std::string said = logits(job, a.engine.parsed());
  cli::end_progress();
  std::cout << said;
  return 0;
}

}  // namespace

Command logits_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("logits", about);
  app->add_option("checkpoint", a->job.checkpoint, "Checkpoint directory")
      ->required()
      ->type_name("CHECKPOINT");
  app->add_option("--tokens", a->job.tokens, "Token ids")->required()->type_name("FILE");
  app->add_option("-o,--out", a->job.out, "File to write: *.safetensors or *.jsonl")
      ->type_name("OUT");
  a->engine.describe(*app);
  app->add_flag("--trace", a->job.trace,
                "Also write tensors and decisions of the first sequence, by HuggingFace's names");
  app->add_flag("--plan", a->job.plan_only, "Say what it takes of memory, and do nothing");
  return {app, [=](const std::string&) { return run(*a); }};
}

}  // namespace dsa::run
