// verify/kernels/cases/indexer_kl.hpp — the reading of the indexer's loss that a case gives.
#pragma once

#include "core/kl_semantics.hpp"
#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

/// What a loss and its gradient depend on; reductions are in in["weight"].
KlSemantics kl_semantics(const Case&);

}  // namespace dsa::verify::kernels
