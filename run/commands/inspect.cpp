#include "run/inspect.hpp"

#include <iostream>
#include <memory>

#include "cli/numbers.hpp"
#include "core/file.hpp"
#include "core/outputs.hpp"
#include "run/commands/command.hpp"

namespace dsa::run {
namespace {

constexpr const char* about = R"(
Lists what a checkpoint holds (family, parameters in all, active per token and in the indexer,
layers and how they share indices, dtypes), what decoding one token costs at a context length, and
everything wrong with it: missing, extra, misshaped and unreadable tensors, numbers that are not
finite, block scales that are not positive (or no powers of two where scale_fmt is ue8m0). Every
number in the files is read. Warnings name what no trained model has, and what is there but not
used: constant tensors, block scales of exactly 1, promised blocks that are missing, files that no
index lists, keys of config.json.

Of a config.json alone, or a directory with nothing else, the same is counted in the dtypes that
releases have.

Exit status 0: nothing is wrong. 1: the problems are listed, one line each. 2: the directory cannot
be read as a checkpoint at all.

Cost of a token that sees S keys, per layer, with R = kv_lora_rank, P = qk_rope_head_dim, N heads,
and an indexer of H heads x D and top-k K:
  weights    2 FLOP a matrix element touched; of the routed experts num_experts_per_tok of them
  attention  2 N ((R+P) + R) FLOP and R+P cached numbers for each of min(K,S) keys
  indexer    2 H (D+1) FLOP and D cached numbers for each of S keys
Cached numbers are taken to have the config's dtype, weights that of the files.

Example: dsa-run inspect models/v32 --context 131072 --json v32.json)";

struct Arguments {
  std::string directory, json;
  Index context = 4096;
};

int run(const Arguments& a) {
  check_outputs({a.json}, {a.directory});
  const Inspection report = inspect(a.directory, a.context);
  if (!a.json.empty()) write_text(a.json, json_text(as_json(report)));
  std::cout << as_text(report);
  return report.ok() ? 0 : 1;
}

}  // namespace

Command inspect_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("inspect", about);
  app->add_option("dir", a->directory, "Checkpoint directory, or a config.json")
      ->required()
      ->type_name("DIR");
  cli::add_integer(*app, "--context", a->context, {1, Index{1} << 40},
                   "Keys that the token sees, S")
      ->capture_default_str();
  app->add_option("--json", a->json, "Write the same as JSON to this file")->type_name("FILE");
  return {app, [=](const std::string&) { return run(*a); }};
}

}  // namespace dsa::run
