// dsa-verify — the judge, from the command line.
#include "verify/commands/command.hpp"

namespace {

constexpr const char* about = R"(dsa-verify: is this output what the model's definition says?

The definition is a double-precision reference of DeepSeek-V2, V3, V3.2 and GLM-5 with sparse
attention. Limits are derived from perturbed runs of it at the declared precision, never built in.

  dsa-verify golden CHECKPOINT GOLDEN                    is this golden right?
  dsa-verify golden CHECKPOINT GOLDEN --candidate FILE   is my implementation right?
  dsa-verify diagnose CHECKPOINT CANDIDATE               which known defect explains it?
  dsa-verify localise CHECKPOINT CANDIDATE               which op of my implementation is wrong?
  dsa-verify power CHECKPOINT GOLDEN                     which known defects could it see?
  dsa-verify gradients CHECKPOINT GOLDEN                 are these the right gradients?
  dsa-verify training CHECKPOINT TRAJECTORY              does this run follow its recipe?
  dsa-verify invariants CHECKPOINT                       what needs no golden
  dsa-verify ops                                         are the kernels right, one by one?
  dsa-verify samples DIR                                 judge every golden of a directory
  dsa-verify merge REPORT...                             join verdicts on spans of layers

Exit status: 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive, 130 interrupted.)";

}  // namespace

int main(int argc, char** argv) {
  using namespace dsa::verify;
  return dsa::cli::run({"dsa-verify",
                        about,
                        {golden_command, gradients_command, training_command, diagnose_command,
                         defects_command, localise_command, power_command, invariants_command,
                         ops_command, samples_command, merge_command}},
                       argc, argv);
}
