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

// Of training.
Op embed_backward_op();
Op rmsnorm_backward_op();
Op layernorm_backward_op();
Op rope_backward_op();
Op linear_backward_op();
Op swiglu_backward_op();
Op router_scores_backward_op();
Op router_weights_backward_op();
Op balance_backward_op();
Op mixing_op();
Op mixing_backward_op();
Op cross_entropy_backward_op();
Op heads_attention_op();
Op heads_attention_backward_op();
Op indexer_scores_backward_op();
Op indexer_kl_backward_op();

}  // namespace dsa::verify::kernels
