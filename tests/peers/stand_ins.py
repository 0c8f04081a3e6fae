"""What the stand-ins of this directory share: the mathematics of other people's kernels, in plain torch.

The modules beside this file have the names, signatures, checks and conventions of the kernels that
experiments/bench/peers/kernels_torch.py calls (docs/ops.md has their sources), so that its calls and the
layouts are tried where there is no GPU. They compute in double, from what the arguments hold.
"""
import torch

NOTHING = -1000  # the exponent of zero


def attend(q, kv, keys, counted, scale):
    """One query: q (H, 576) over rows `keys` of kv (S, 576) where `counted`. Rows beyond kv are zeros, as
    guarded loads give them. (H, 512) and a natural lse; NaN and -inf where no key counts."""
    inside = (keys >= 0) & (keys < len(kv))
    rows = kv[keys.clamp(0, len(kv) - 1)].double().masked_fill(~inside[:, None], 0.0)[counted]
    scores = scale * q.double() @ rows.T
    return torch.softmax(scores, -1) @ rows[:, :512] if len(rows) else torch.full((len(q), 512), torch.nan), \
        scores.logsumexp(-1)


def attend_all(q, kv, indices, counted, scale):
    """Queries (T, H, 576): outputs (T, H, 512) as bf16, and lse (T, H)."""
    rows = [attend(q[t], kv, indices[t].long(), counted[t], scale) for t in range(len(q))]
    out, lse = (torch.stack(part) for part in zip(*rows))
    return out.to(torch.bfloat16), lse.float()


def dots(q, k):
    """(S, H) of q (H, D) and k (S, D)."""
    return k.double() @ q.double().T


def exponents(x):
    return torch.where(x == 0, NOTHING, torch.frexp(x).exponent - 1)


def hopper_dots(q, k):
    """The same by the sums of Hopper's FP8 tensor cores (verify/kernels/cases/hopper_fp8.hpp)."""
    total = torch.zeros(len(k), len(q), dtype=torch.float64)
    for first in range(0, q.shape[1], 32):
        a, b = k[:, None, first:first + 32].double(), q[None, :, first:first + 32].double()
        products = a * b
        e = torch.where(products == 0, NOTHING, exponents(a).clamp(min=-6) + exponents(b).clamp(min=-6))
        unit = torch.exp2((torch.maximum(e.amax(-1), exponents(total)) - 13).clamp(min=-100).double())
        total = unit * (torch.trunc(products / unit[..., None]).sum(-1) + torch.trunc(total / unit))
        last = torch.exp2((exponents(total) - 13).clamp(min=-100).double())
        total = torch.trunc(total / last) * last
    return total


def index_scores(q, k, k_scale, weights, dots=dots):
    """(T, S) of q (T, H, D), k (S, D), k_scale (S), weights (T, H)."""
    return torch.stack([dots(q[t], k).relu() @ weights[t].double() for t in range(len(q))]).float() * k_scale


def expect_index_arguments(q, k, k_scale, weights):
    assert q.dtype == k.dtype == torch.float8_e4m3fn and k_scale.dtype == weights.dtype == torch.float32
    assert q.is_contiguous() and k.is_contiguous() and weights.is_contiguous()
    assert q.shape[-2] in (32, 64) and q.shape[-1] in (32, 64, 128)
    assert weights.shape == q.shape[:-1] and k_scale.shape == k.shape[:-1]
