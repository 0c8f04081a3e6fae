"""Inputs to try a kernel on: the suite's cases, and the shapes at which selections go wrong."""
import dataclasses
import hashlib

import numpy as np

from dsa import _core
from dsa._arrays import whole
from dsa._errors import require
from dsa.reference._answers import answer, facts_of, named, want_of
from dsa.testing._close import judge, outputs_of

_TORCH = {"F32": "float32", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "U8": "uint8", "I32": "int32"}
_SELECTING = ("indexer_scores", "indexer_topk", "topk_select")


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs, and what judges the outputs for them."""
    op: str
    name: str
    dtype: str
    case: object
    skip: str = ""  # why the case can show nothing of a selection

    def __repr__(self):
        return f"{self.op}-{self.name}"

    @property
    def scalars(self):
        """{name: float}: topk, scale, eps, relu, ..."""
        return dict(self.case.scalars)

    @property
    def inputs(self):
        """{name: array of numpy}: float32, which holds bf16 and e4m3 exactly, or int64 where they are subscripts."""
        return {name: x.astype({"I32": np.int64, "U8": np.uint8}.get(dtype, np.float32))
                for name, (dtype, x, _) in self.case.inputs().items()}

    @property
    def want(self):
        """{output: array}, the definition's answer; of selections also the scores that judge them."""
        return want_of(self.case)

    def torch(self, device="cpu"):
        """{name: tensor}, in the types that a kernel of the dtype reads; subscripts are int32."""
        import torch
        return {name: torch.from_numpy(x).to(getattr(torch, _TORCH[dtype])).to(device)
                for name, (dtype, x, _) in self.case.inputs().items()}

    def check(self, actual):
        """Raises AssertionError where `actual`, the first output or {output: array}, is beyond its bounds."""
        judge(self.case, outputs_of(self.case, actual), self.name, self.scalars.get("topk"))


def _of_the_suite(op, dtype, seed, max_flops):
    """The suite's cases that have an answer and something to judge."""
    for pose in _core.suite(op, seed):
        if pose.dtype != dtype or pose.flops > max_flops:
            continue
        case = pose()
        if case.refusal or any(0 in tuple(shape) for _, _, shape in case.outputs().values()):
            continue
        yield Case(op, case.name, dtype, case, _why_skipped(op, case))


def _why_skipped(op, case):
    """Where S <= k, every key is selected, and no selection can be wrong."""
    sizes, topk = case.sizes(), case.scalars.get("topk")
    if op == "mla_sparse":
        topk = sizes["K"]
    if op not in (*_SELECTING, "mla_sparse") or topk is None or sizes["S"] > topk:
        return ""
    return f"S = {sizes['S']} <= k = {topk:g}: every key is selected, and no selection can be wrong"


def _draw(seed, name):
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def _rounded(x, dtype):
    return _core.rounded({"fp32": "F32", "bf16": "BF16"}[dtype], np.ascontiguousarray(x, np.float64))


def _indexer_inputs(draw, dtype, sizes, ties):
    queries, keys, heads, width = (sizes[axis] for axis in "TSHD")
    q, k = draw.standard_normal((queries, heads, width)), draw.standard_normal((keys, width))
    if ties:  # every key twice: equal scores at the boundary
        k[1::2] = k[:keys // 2 * 2:2][:len(k[1::2])]
    w = draw.standard_normal((queries, heads))
    return {"q": _rounded(q, dtype), "k": _rounded(k, dtype), "w": _rounded(w, "fp32")}


def _sparse_inputs(draw, dtype, sizes, blind):
    queries, keys, heads, width, topk = (sizes[axis] for axis in "TSNRK")
    q, kv = draw.standard_normal((queries, heads, width + 8)), draw.standard_normal((keys, width + 8))
    chosen = np.full((queries, topk), -1)
    for t in range(queries):
        n = 0 if blind and t % 2 else min(topk, max(1, keys - queries + t + 1))
        chosen[t, :n] = np.sort(draw.permutation(max(1, keys - queries + t + 1))[:n])
    return {"q": _rounded(q, dtype), "kv": _rounded(kv, dtype), "chosen": chosen}


def _at_the_edge(op, dtype, seed):
    """S = k and k +- 1, k = 1, ties at the boundary, and rows that see nothing."""
    for tag, keys, topk in (("k+1", 17, 16), ("k", 16, 16), ("k-1", 15, 16), ("k=1", 9, 1), ("ties", 24, 7),
                            ("blind", 20, 6)):
        name = f"{dtype}-S{keys}-K{topk}-edge-{tag}"
        draw = _draw(seed, f"{op} {name}")
        if op == "mla_sparse":
            sizes = {"T": 4, "S": keys, "N": 3, "R": 16, "K": topk}
            inputs, scalars = _sparse_inputs(draw, dtype, sizes, tag == "blind"), {"scale": 0.2, "R": 16}
        elif op == "topk_select":
            scores = draw.integers(0, 3, (4, keys)) if tag == "ties" else draw.standard_normal((4, keys))
            inputs, scalars = {"scores": _rounded(scores, "fp32")}, {"topk": topk}
            if tag == "blind":
                inputs["scores"][1::2] = -np.inf
        else:
            inputs = _indexer_inputs(draw, dtype, {"T": 4, "S": keys, "H": 3, "D": 16}, tag == "ties")
            ends = np.arange(1, 5) + keys - 4
            if tag == "blind":
                ends[1::2] = 0
            inputs |= {"begin": np.zeros(4, np.int64), "end": ends}
            scalars = {"topk": topk} if op == "indexer_topk" else {}
        case = answer(op, inputs, dtype, **scalars).case
        yield Case(op, name, dtype, case, _why_skipped(op, case))


def cases(op, *, dtype="fp32", seed=1, max_flops=2e7):
    """The cases of an op for a kernel of a dtype, drawn from a seed: the suite of `dsa-verify ops` up to max_flops
    operations (0: only the smallest), and for selections S = k and k +- 1, k = 1, ties, and rows that see nothing.

    A case with a reason in `skip` shows nothing: `parametrize` skips it with that reason.
    """
    op = named(op)
    dtypes = facts_of(op)["dtypes"]
    require(dtype in dtypes, f"{op} has no cases of dtype {dtype!r:.80}, expected {', '.join(dtypes)}")
    found = list(_of_the_suite(op, dtype, whole("seed", seed, 0, 2**62), max_flops))
    if op in (*_SELECTING, "mla_sparse") and dtype != "fp8":
        found += _at_the_edge(op, dtype, seed)
    return found


def parametrize(op, **options):
    """pytest.mark.parametrize("case", cases(op, ...)); cases that can show nothing are skipped, with the reason."""
    import pytest
    return pytest.mark.parametrize("case", [
        pytest.param(case, id=case.name, marks=[pytest.mark.skip(reason=case.skip)] if case.skip else [])
        for case in cases(op, **options)])
