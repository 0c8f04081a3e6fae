// verify/kernels/cases/all.hpp — one declaration per op of this directory.
#pragma once

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

Op embed_op();
Op rmsnorm_op();
Op layernorm_op();
Op rope_op();
Op hadamard_op();
Op latent_op();
Op linear_op();
Op swiglu_op();
Op router_op();
Op experts_op();
Op indexer_scores_op();
Op topk_select_op();
Op indexer_topk_op();
Op sparse_attention_op();
Op dense_attention_op();
Op expanded_attention_op();

}  // namespace dsa::verify::kernels
