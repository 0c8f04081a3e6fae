// optimized/train/main.cpp — dsa-train: train a model with DeepSeek Sparse Attention.
#include "optimized/train/commands/command.hpp"

namespace {

constexpr const char* about = R"(
Trains models of DeepSeek-V2, V3, V3.2 and GLM-5 on the CPU: dense pretraining, the warm-up of the
lightning indexer, sparse training, SFT and LoRA, one stage after the other as a TOML file says.

  dsa-train CONFIG.toml [section.key=value ...]     the same as dsa-train run CONFIG.toml ...

Exit status: 0 success, 1 a stage did not reach the accuracy it was to reach, 2 bad usage, unusable
input or a loss that is no finite number, 130 interrupted (Ctrl-C), with everything saved.)";

}  // namespace

int main(int argc, char** argv) {
  using namespace dsa::train;
  return dsa::cli::run({"dsa-train", about, {run_command, merge_command}, "run"}, argc, argv);
}
