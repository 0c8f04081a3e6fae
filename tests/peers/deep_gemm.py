"""Stands in for DeepGEMM 54e2261, with the sums of Hopper's FP8 tensor cores."""
import torch

from stand_ins import expect_index_arguments, hopper_dots, index_scores

__version__ = "2.6.1+local"


def get_num_sms():
    return 132


def fp8_mqa_logits(q, kv, weights, cu_seq_len_k_start, cu_seq_len_k_end, clean_logits=True, max_seqlen_k=0):
    keys, scale = kv
    expect_index_arguments(q, keys, scale, weights)
    assert cu_seq_len_k_start.dtype == cu_seq_len_k_end.dtype == torch.int32
    s = torch.arange(len(keys))
    hidden = (s < cu_seq_len_k_start[:, None]) | (s >= cu_seq_len_k_end[:, None])
    logits = index_scores(q, keys, scale, weights, hopper_dots)
    return logits.masked_fill(hidden, -torch.inf if clean_logits else torch.nan)


def get_paged_mqa_logits_metadata(context_lens, block_kv, num_sms, indices=None):
    assert context_lens.dim() == 2 and context_lens.dtype == torch.int32 and context_lens.is_contiguous()
    assert block_kv == 64
    return torch.zeros(num_sms + 1, 2, dtype=torch.int32)


def fp8_paged_mqa_logits(q, kv_cache, weights, context_lens, block_table, schedule_meta, max_context_len,
                         clean_logits=False, indices=None):
    queries, next_n, H, D = q.shape
    assert next_n == 1 and context_lens.shape == (queries, 1) and len(block_table) == queries
    assert schedule_meta.shape == (get_num_sms() + 1, 2) and kv_cache.dtype == torch.uint8
    assert kv_cache.shape[1:] == (64, 1, D + 4)
    logits = torch.full((queries, max_context_len), torch.nan)
    pages = kv_cache.reshape(len(kv_cache), -1)
    for t in range(queries):
        n, mine = int(context_lens[t]), pages[block_table[t].long()]
        keys = mine[:, :64 * D].reshape(-1, D).view(torch.float8_e4m3fn)[:n].contiguous()
        scale = mine[:, 64 * D:].contiguous().view(torch.float32).reshape(-1)[:n].contiguous()
        expect_index_arguments(q[t], keys, scale, weights[t:t + 1])
        logits[t, :n] = index_scores(q[t], keys, scale, weights[t:t + 1], hopper_dots)
    return logits
