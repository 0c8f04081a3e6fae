"""The definition in fp64, op by op, and beside it the error that a kernel may make.

Arrays may be numpy's, torch's or JAX's, in fp64, fp32, fp16, bf16, e4m3 or e8m0: they are widened to fp64 exactly,
never narrowed. Results are fp64 arrays of numpy; gradients are a dict of them, named as the arguments with d_ before. Tensors
that require grad are refused: detach them. Wrong shapes, dtypes and subscripts are dsa.Error.

The letters of shapes: T queries, S keys, C channels, N heads, R latent, P rotated, B not rotated, U value channels, H
heads of the indexer, D its channels, K chosen keys, E experts, F a feed-forward network's width, V vocabulary.

`answer(op, inputs, dtype)` gives what a kernel should say, and per element the bound that its dtype allows.
"""
from dsa.reference._answers import Answer, answer, ops
from dsa.reference._attention import (attention_mass, mla_absorbed, mla_absorbed_backward, mla_expanded,
                                      mla_expanded_backward)
from dsa.reference._indexer import (index_kl, index_kl_backward, indexer_scores, indexer_scores_backward, topk_select)
from dsa.reference._network import (accumulate, accumulate_backward, add, add_backward, embed, embed_backward, hadamard,
                                    hadamard_backward, layernorm, layernorm_backward, linear, linear_backward, rmsnorm,
                                    rmsnorm_backward, rope, rope_backward, rope_table, swiglu, swiglu_backward)
from dsa.reference._router import (router_drop_groups, router_group_scores, router_scores, router_scores_backward,
                                   router_weights, router_weights_backward)
from dsa.reference._training import (adamw_step, balance_loss, balance_loss_backward, clip_factor, cross_entropy,
                                     cross_entropy_backward, update_router_bias)

__all__ = [
    "Answer", "accumulate", "accumulate_backward", "adamw_step", "add", "add_backward", "answer", "attention_mass",
    "balance_loss", "balance_loss_backward", "clip_factor", "cross_entropy", "cross_entropy_backward", "embed",
    "embed_backward", "hadamard", "hadamard_backward", "index_kl", "index_kl_backward", "indexer_scores",
    "indexer_scores_backward", "layernorm", "layernorm_backward", "linear", "linear_backward", "mla_absorbed",
    "mla_absorbed_backward", "mla_expanded", "mla_expanded_backward", "ops", "rmsnorm", "rmsnorm_backward", "rope",
    "rope_backward", "rope_table", "router_drop_groups", "router_group_scores", "router_scores",
    "router_scores_backward", "router_weights", "router_weights_backward", "swiglu", "swiglu_backward", "topk_select",
    "update_router_bias",
]
