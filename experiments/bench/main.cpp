// dsa-bench — how fast the optimised backends are, against this machine's own limits and others.
#include "experiments/bench/bench.hpp"

namespace {

constexpr const char* about =
    "dsa-bench: how fast the CPU backend is, and the CUDA kernels.\n\n"
    "  dsa-bench ops                every op, with the fraction of this machine's roofline "
    "reached\n"
    "  dsa-bench growth             how the cost of a layer grows with the context\n"
    "  dsa-bench cuda               the CUDA kernels on a device, at published sizes\n"
    "  dsa-bench model CHECKPOINT   prefill and decoding of a whole model\n\n"
    "Exit status: 0 measured, 2 usage or bad input, 130 interrupted.";

}  // namespace

int main(int argc, char** argv) {
  using namespace dsa::bench;
  return dsa::cli::run(
      {"dsa-bench", about, {ops_command, growth_command, cuda_command, model_command}}, argc, argv);
}
