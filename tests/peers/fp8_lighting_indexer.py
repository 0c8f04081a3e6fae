"""Stands in for examples/deepseek_v32/fp8_lighting_indexer.py of tilelang a35008a42."""
import torch

from stand_ins import expect_index_arguments, index_scores


def mqa_attn_return_logits_interface(q, kv, kv_scales, weights, cu_seqlen_ks, cu_seqlen_ke, clean_logits=True):
    expect_index_arguments(q, kv, kv_scales, weights)
    s = torch.arange(len(kv))
    hidden = (s < cu_seqlen_ks[:, None]) | (s >= cu_seqlen_ke[:, None])
    return index_scores(q, kv, kv_scales, weights).masked_fill(hidden, -torch.inf if clean_logits else torch.nan)
