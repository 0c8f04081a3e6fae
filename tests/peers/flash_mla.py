"""Stands in for FlashMLA 9241ae3."""
import torch

from stand_ins import attend_all


class FlashMLASchedMeta:
    pass


def get_mla_metadata(*args, **kwargs):
    return FlashMLASchedMeta(), None


def by_convention(out, lse):
    return out.nan_to_num(0.0), lse.masked_fill(lse == -torch.inf, torch.inf)


def flash_mla_sparse_fwd(q, kv, indices, sm_scale, d_v=512, attn_sink=None, topk_length=None):
    assert q.dtype == kv.dtype == torch.bfloat16 and indices.dtype == torch.int32
    assert q.shape[1] in (64, 128) and q.shape[2] == 576 and kv.shape[1:] == (1, 576) and d_v == 512
    assert indices.shape[1] == 1 and indices.shape[2] % 128 == 0 and isinstance(sm_scale, float)
    indices = indices[:, 0]
    out, lse = by_convention(
        *attend_all(q, kv[:, 0], indices, (indices >= 0) & (indices < len(kv)), sm_scale))
    return out, torch.full_like(lse, torch.nan), lse


def flash_mla_with_kvcache(q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata,
                           num_splits=None, softmax_scale=None, causal=False, is_fp8_kvcache=False, indices=None,
                           attn_sink=None, extra_k_cache=None, extra_indices_in_kvcache=None, topk_length=None,
                           extra_topk_length=None):
    assert isinstance(tile_scheduler_metadata, FlashMLASchedMeta) and num_splits is None
    assert is_fp8_kvcache and not causal and head_dim_v == 512 and indices.shape[2] % 64 == 0
    assert k_cache.dtype == torch.uint8 and k_cache.shape[2:] == (1, 656) and q.shape[1] == 1
    rows = k_cache.reshape(-1, 656)
    latent = rows[:, :512].contiguous().view(torch.float8_e4m3fn).float()
    scale = rows[:, 512:528].contiguous().view(torch.float32).repeat_interleave(128, 1)
    rotated = rows[:, 528:].contiguous().view(torch.bfloat16)
    kv = torch.cat(((latent * scale).to(torch.bfloat16), rotated), 1)
    out, lse = by_convention(*attend_all(q[:, 0], kv, indices[:, 0], indices[:, 0] != -1, softmax_scale))
    return out[:, None], lse[..., None]
