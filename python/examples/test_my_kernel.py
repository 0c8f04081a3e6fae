"""A pytest for your kernels. Copy it, put your own in place of the three functions below, and run

    pytest test_my_kernel.py --dsa-report kernels.html

It passes with plain torch, or numpy where there is no torch. There is no tolerance to choose: every element has a bound
that is derived from its inputs. docs/python.md says how to read a failure.
"""
import numpy as np

from dsa.reference import answer
from dsa.testing import assert_close, assert_selection, parametrize

try:
    import torch as xp
except ImportError:
    xp = np


def inputs_of(case):
    """The case's inputs as the kernels below take them; case.torch("cuda") for a kernel on a GPU."""
    return case.inputs if xp is np else case.torch()


def indexer_scores(q, k, w, begin, end, relu=True):
    """scores (T, S) of q (T, H, D), k (S, D), w (T, H); query t sees keys begin[t] to end[t]."""
    dots = xp.einsum("thd,sd->ths", q, k)
    if relu:
        dots = dots * (dots > 0)
    scores = (w[:, :, None] * dots).sum(1)
    key = xp.arange(len(k))
    seen = (key >= begin[:, None]) & (key < end[:, None])
    return xp.where(seen, scores, -float("inf"))


def topk(scores, k):
    """chosen (T, k) keys of scores (T, S), -1 where fewer are seen."""
    order = xp.argsort(-scores, 1)[:, :k]
    chosen = xp.where(scores[xp.arange(len(scores))[:, None], order] > -float("inf"), order, -1)
    return chosen


def sparse_attention(q, kv, chosen, R, scale):
    """out (T, N, R) of q (T, N, R+P), kv (S, R+P), chosen (T, K) with -1 for none."""
    taken = chosen >= 0
    nothing = xp.zeros((1, kv.shape[1]), dtype=kv.dtype)
    rows = xp.concatenate([kv, nothing])[chosen]  # the last row for -1
    scores = scale * xp.einsum("tnd,tkd->tnk", q, rows)
    scores = xp.where(taken[:, None], scores, -float("inf"))
    largest = xp.where(taken.any(1)[:, None], xp.amax(scores, -1), 0.0)
    p = xp.exp(scores - largest[:, :, None])
    total = p.sum(-1)[:, :, None]
    return xp.einsum("tnk,tkr->tnr", p, rows[:, :, :R]) / xp.where(total > 0, total, 1.0)


@parametrize("indexer_scores", dtype="fp32")
def test_indexer_scores(case):
    case.check(indexer_scores(**inputs_of(case), relu=case.scalars["relu"]))


@parametrize("indexer_topk", dtype="fp32")
def test_selection(case):
    """A selection is right if the scores, within what a kernel may get them wrong by, could have led to it."""
    relu, k = case.scalars["relu"], int(case.scalars["topk"])
    wanted = answer("indexer_scores", case.inputs, "fp32", relu=relu)
    scores = indexer_scores(**inputs_of(case), relu=relu)
    assert_selection(topk(scores, k), wanted.want["scores"], k, allowed=wanted.allowed["scores"])


@parametrize("sparse_attention", dtype="fp32")
def test_sparse_attention(case):
    case.check(sparse_attention(**inputs_of(case), R=int(case.scalars["R"]), scale=case.scalars["scale"]))


def test_inputs_of_my_own():
    """The same by one call, on numbers that you bring."""
    draw = np.random.default_rng(1)
    q, k, w = (draw.standard_normal(shape).astype(np.float32) for shape in ((4, 3, 16), (40, 16), (4, 3)))
    ends = np.arange(37, 41)
    scores = indexer_scores(*(xp.asarray(x) for x in (q, k, w, 0 * ends, ends)))
    assert_close(scores, op="indexer_scores", inputs={"q": q, "k": k, "w": w}, dtype="fp32", topk=8)
