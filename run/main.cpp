// run/main.cpp — dsa-run: run checkpoints, look into them, and change their format.
#include "run/commands/command.hpp"

namespace {

constexpr const char* about = R"(
Runs HuggingFace checkpoints of DeepSeek-V2, V3, V3.2 and GLM-5, looks into them, and changes their
format. A checkpoint is a directory with config.json and model.safetensors, or with
model.safetensors.index.json and its shards. inspect and convert map and stream the files: a model
larger than memory is no obstacle to them.

Exit status: 0 success, 1 `inspect` found something wrong, 2 bad usage or unusable input,
130 interrupted (Ctrl-C), with nothing left half-written.
`dsa-run COMMAND --help` lists the options of logits, generate, serve, mmlu, tokenize, inspect,
convert and jsonl.)";

}  // namespace

int main(int argc, char** argv) {
  using namespace dsa::run;
  return dsa::cli::run({"dsa-run",
                        about,
                        {logits_command, generate_command, serve_command, mmlu_command,
                         tokenize_command, inspect_command, convert_command, jsonl_command}},
                       argc, argv);
}
