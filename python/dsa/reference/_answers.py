"""What a kernel should say about somebody's inputs, and how far off it may be: verify/kernels/cases/."""
import dataclasses

import numpy as np

from dsa import _core
from dsa._arrays import integers_of, number, numbers_of
from dsa._errors import require

_NAMES = {"sparse_attention": "mla_sparse", "dense_attention": "mla_dense", "expanded_attention": "mla_expanded"}


def named(op):
    """The suite's name of an op; Error: there is none."""
    known = [facts["name"] for facts in _core.ops()]
    name = _NAMES.get(op, op) if isinstance(op, str) else op
    require(isinstance(name, str) and name in known,
            f"there is no op {op!r:.80}, expected one of {', '.join([*known, *_NAMES])}")
    return name


def facts_of(op):
    """What the suite knows of an op, by its own name; with bounds for inputs of one's own or without."""
    return next(facts for facts in _core.ops() if facts["name"] == op)


def ops():
    """{op: {"formula", "dtypes", "inputs": {name: axes}, "scalars": {name: default}}} of the ops that have bounds. A
    default of NaN: it must be given. sparse_attention, dense_attention and expanded_attention are other names of mla_*."""
    return {facts["name"]: {"formula": facts["formula"], "dtypes": list(facts["dtypes"]),
                            "inputs": {name: axes for name, axes, _, _ in facts["inputs"]},
                            "scalars": dict(facts["scalars"])} for facts in _core.ops() if facts["has_bounds"]}


@dataclasses.dataclass(frozen=True)
class Answer:
    """want and allowed, {output: fp64 array}: |actual - want| <= allowed element by element. Of selections, want and
    allowed of `scores` judge the choice."""
    op: str
    dtype: str
    want: dict
    allowed: dict
    case: object  # what judges outputs: dsa.testing uses it


def want_of(case):
    """{output: array}: fp64, or int64 where it holds subscripts."""
    whole = {name for name, (stored, _, _) in case.outputs().items() if stored == "I32"}
    return {name: x.astype(np.int64) if name in whole else x for name, x in case.want().items()}


def _whole_inputs(op):
    facts = facts_of(op)
    return {name for name, _, kind, _ in facts["inputs"] if kind == "int32"}, facts


def _causal(inputs):
    """begin and end of queries that are the last T of S tokens."""
    queries, keys = len(inputs["q"]), len(inputs["kv" if "kv" in inputs else "k"])
    ends = np.clip(np.arange(1, queries + 1) + keys - queries, 0, keys)
    return {"begin": np.zeros(queries, np.int64), "end": ends.astype(np.int64)}


def answer(op, inputs, dtype="fp32", **scalars):
    """The definition's answer for `inputs`, {name: array}, and the error that a kernel of `dtype` may make.

    Input names, shapes and scalars: ops(). Inputs must hold numbers that the dtype's kernels read: they are never
    rounded. begin and end may be left out: then queries are the last T tokens of one document. Bounds: gamma(n, u) of
    the sums in fp32, in any order, plus what the dtype stores (docs/ops.md). Gradients that are added to (d_g, d_w, ..,
    and d_x with add=1) are 0 where they are not given.
    """
    op = named(op)
    require(isinstance(dtype, str), f"dtype is {dtype!r:.80}, expected fp32, bf16 or fp8")
    require(isinstance(inputs, dict) and all(isinstance(name, str) for name in inputs),
            "inputs is no dict of arrays by name")
    indices, facts = _whole_inputs(op)
    arrays = {name: integers_of(name, x).astype(np.float64) if name in indices else numbers_of(name, x)
              for name, x in inputs.items()}
    takes_ranges = {"begin", "end"} <= {name for name, *_ in facts["inputs"]}
    if takes_ranges and not {"begin", "end"} & set(arrays) and arrays.get("q") is not None:
        require("k" in arrays or "kv" in arrays, f"{op} needs its keys")
        require(all(x.ndim > 0 for x in arrays.values()), f"{op} takes arrays, and one of its inputs is a number")
        arrays |= {name: x.astype(np.float64) for name, x in _causal(arrays).items()}
    case = _core.given(op, dtype, arrays, {name: number(name, x) for name, x in scalars.items()})
    return Answer(op, dtype, want_of(case), case.allowed(), case)
