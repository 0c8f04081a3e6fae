#include "optimized/train/pipeline/merge.hpp"

#include <iostream>

#include "optimized/train/commands/command.hpp"

namespace dsa::train {
namespace {

constexpr const char* about = R"(
Writes the model of a checkpoint that a LoRA stage left, with its adapters in the weights:
W + (alpha / r) B A, in fp32. An existing OUT is refused.

Example: dsa-train merge out/lora/ckpt/step-200 models/merged)";

}  // namespace

Command merge_command(CLI::App& app) {
  struct Options {
    std::string checkpoint, out;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("merge", "write a model with its adapters in the weights");
  command->description(about);
  command->add_option("CHECKPOINT", options->checkpoint, "ckpt/step-N of a run")->required();
  command->add_option("OUT", options->out, "directory to write")->required();
  return {command, [=](const std::string&) {
            std::cout << merge_adapters(options->checkpoint, options->out) << std::endl;
            return 0;
          }};
}

}  // namespace dsa::train
