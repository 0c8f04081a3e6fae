#include <iostream>
#include <memory>

#include "core/check.hpp"
#include "core/outputs.hpp"
#include "core/recording.hpp"
#include "run/commands/command.hpp"

namespace dsa::run {
namespace {

constexpr const char* about = R"(
Writes tokens and logits of GOLDEN (safetensors) to OUT as MaxText's logit checker reads them: a
line a sequence, {"prompt": "", "tokens": [S ids], "logits": [S lists of V numbers, as fp32]}.
Padding is left out. Packed documents, NaN and infinities, which the format cannot express, are
refused.

Example: dsa-run jsonl logits.safetensors golden.jsonl --dtype fp32)";

struct Arguments {
  std::string in, out, dtype;
};

int run(const Arguments& a) {
  check_outputs({a.out}, {a.in});
  const Recording golden = read_recording(a.in, a.dtype, 0);
  require(!golden.logits.empty(), a.in + " has no logits, expected a golden of logits");
  write_jsonl(a.out, golden);
  std::cout << a.out << ": " << golden.sequences.size() << " lines, logits in " << golden.dtype
            << '\n';
  return 0;
}

}  // namespace

Command jsonl_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("jsonl", about);
  app->add_option("in", a->in, "Golden to read")->required()->type_name("GOLDEN");
  app->add_option("out", a->out, "File to write")->required()->type_name("OUT");
  app->add_option("--dtype", a->dtype, "Column: fp64, fp32 or bf16. Default: the most precise")
      ->check(CLI::IsMember({"fp64", "fp32", "bf16"}).description(""))
      ->type_name("TYPE");
  return {app, [=](const std::string&) { return run(*a); }};
}

}  // namespace dsa::run
