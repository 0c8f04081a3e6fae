#include "verify/invariants/invariants.hpp"

#include "verify/commands/command.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

struct InvariantArguments {
  Arguments common;
  std::string command;
  Index length = 0;
};

int run(const InvariantArguments& a, const std::string& command_line) {
  a.common.check_reports();
  for (const char* flag : {"--format", "--isa", "--mla", "--chunk", "--threads", "--memory"})
    require(
        a.command.empty() || !a.common.engine.has(flag),
        std::string(flag) + " tells a backend of ours how to compute; leave it out with --command");
  JudgeOptions judge = a.common.judge_options();
  Implementation asked;
  if (a.command.empty()) {
    const EngineOptions engine = a.common.engine_options();
    if (!judge.precision) judge.precision = precision_of(engine);
    asked = open_backend(a.common.checkpoint, engine);
  } else {
    asked = command_implementation(a.command, read_config(a.common.checkpoint).vocab_size);
  }
  Invariants result = check_invariants(a.common.checkpoint, asked, {judge, a.length});
  result.receipt.command = command_line;
  write_if_asked(a.common.json, json_text(to_json(result)));
  print(table(result, is_coloured()));
  return exit_code(result.outcome);
}

}  // namespace

Command invariants_command(CLI::App& parent) {
  const auto a = std::make_shared<InvariantArguments>();
  CLI::App* app = parent.add_subcommand(
      "invariants",
      "What must hold of any right implementation of CHECKPOINT, without a golden: a later token\n"
      "moves nothing before it, prefill = chunked = decode, packed = separate, padded = unpadded,\n"
      "and more (docs/invariants.md). Asks the reference, or a command of yours that reads tokens\n"
      "and writes logits. Exit status: 0 all hold, 1 one does not, 2 usage or bad input, 3 "
      "nothing\n"
      "beyond top-k could be tested, or rounding may have turned too many decisions.");
  add_checkpoint(*app, a->common);
  CLI::Option* backend = add_backend(*app, a->common, "Which backend of ours is asked");
  app->add_option("--command", a->command,
                  "Ask a command instead: it reads the safetensors file {in} (tokens,\n"
                  "attention_mask) and writes {out} (logits); {chunks} where it has a cache")
      ->excludes(backend);
  cli::add_integer(*app, "--length", a->length, {2, 1 << 20},
                   "Tokens of the sequence (default: 2.25 times index_topk, from 48 to 256)");
  add_precision(*app, a->common);
  add_sampling(*app, a->common.options);
  add_json(*app, a->common, "the result");
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
