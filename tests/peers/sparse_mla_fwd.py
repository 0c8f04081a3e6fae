"""Stands in for examples/deepseek_v32/sparse_mla_fwd.py of tilelang a35008a42."""
import math

import torch

from stand_ins import attend_all


def causal(q, kv, indices, first, sm_scale):
    """Row i has position first + i and sees the keys that are not behind it: -1 among them, of zeros."""
    assert q.dtype == kv.dtype == torch.bfloat16 and indices.dtype == torch.int32
    assert q.is_contiguous() and kv.is_contiguous() and indices.is_contiguous()
    batch, rows, heads, width = q.shape
    assert width == 576 and kv.shape[0] == batch == 1 and kv.shape[2:] == (1, 576)
    assert indices.shape == (batch, rows, 1, indices.shape[3])
    assert heads <= 64 or heads % 64 == 0
    indices = indices[0, :, 0]
    counted = indices <= first + torch.arange(rows)[:, None]
    out, lse = attend_all(q[0], kv[0, :, 0], indices, counted, sm_scale)
    return out[None], lse[None] / math.log(2)


def sparse_mla_fwd_interface(q, kv, indices, sm_scale=None, return_p_sum=False, d_v=512, block_I=64, num_stages=2,
                             threads=256):
    assert not return_p_sum and d_v == 512 and indices.shape[3] % block_I == 0
    return causal(q, kv, indices, 0, sm_scale)
