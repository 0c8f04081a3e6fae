"""Stands in for examples/deepseek_v32/sparse_mla_fwd_pipelined.py of tilelang a35008a42."""
from sparse_mla_fwd import causal


def sparse_mla_fwd_interface(q, kv, indices, q_start_index_s, kv_stride, sm_scale=None, is_casual=True,
                             return_kernel=False, print_kernel=False):
    assert kv_stride == 1 and (q_start_index_s == 0 or q_start_index_s > kv_stride)
    assert indices.shape[3] % 128 == 0 and q.shape[2] % 64 == 0
    return causal(q, kv, indices, q_start_index_s, sm_scale)
