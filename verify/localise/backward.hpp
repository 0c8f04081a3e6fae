// verify/localise/backward.hpp — which ops of somebody's training are wrong by themselves in the
// backward pass.
//
// A backward trace holds "d.NAME": the gradient of the language-model loss with respect to the
// output that a trace calls NAME. The reference's backward pass is run once more with these in
// place of its own, and with the side's forward tensors where it tells them: the backward of every
// op is then fed what the other side fed it. A gradient that still departs was made wrong, by the
// backward of the ops that read the tensor. docs/localise.md.
#pragma once

#include "verify/localise/localise.hpp"

namespace dsa::verify {

/// Whether a recording holds any "d.NAME".
bool is_backward(const Recording&);

/// One file taken apart: the gradients, under the names of the tensors that they belong to, and the
/// forward tensors. A forward trace in a file of its own takes the place of the latter.
struct BackwardTrace {
  Recording gradients, forward;
};
BackwardTrace backward_trace(const std::filesystem::path& file,
                             const std::filesystem::path& forward, const Config&,
                             const std::string& names);

/// The narrowest format of its gradients: a router's are float32 in bf16 runs, too.
reference::Precision precision_of(const BackwardTrace&);

/// Fills outcome, why, first_departure, grafted, inherited, dump_next and unmapped.
void localise_backward(Localisation&, const ModelPair&, const BackwardTrace&, const JudgeOptions&);

}  // namespace dsa::verify
