"""Well-known bugs of each op, as the inputs or scalars that make the definition commit them.

An output that is wrong, and right by the answer to such inputs, has that bug's kind. docs/ops.md lists the bugs.
"""
import numpy as np

from dsa._errors import Error
from dsa.reference import answer


def _with(**changes):
    """Inputs changed: {name: function of the inputs}."""
    return lambda inputs, scalars: ({**inputs, **{n: f(inputs) for n, f in changes.items()}}, scalars)


def _scalars(**changes):
    return lambda inputs, scalars: (inputs, {**scalars, **{n: f(scalars) for n, f in changes.items()}})


def _keys(inputs):
    return len(inputs["k"] if "k" in inputs else inputs["kv"])


def _swapped(x):
    half = x.shape[1] // 2
    return np.concatenate([x[:, half:], x[:, :half]], axis=1)


def _cut_at_first_hole(chosen):
    return np.where(np.cumsum(chosen < 0, axis=1) > 0, -1, chosen)


def _without_last(chosen):
    chosen = chosen.copy()
    for row in chosen:
        taken = np.flatnonzero(row >= 0)
        row[taken[-1:]] = -1
    return chosen


def _no_rope(inputs, scalars):
    q = inputs["q"].copy()
    q[..., int(scalars["R"]):] = 0
    return {**inputs, "q": q}, scalars


def _head_size(inputs, scalars):
    return inputs, {**scalars, "scale": inputs["q"].shape[-1] ** -0.5}


_RANGES = {
    "a future key: the range of keys is one too long": _with(end=lambda i: np.minimum(i["end"] + 1, _keys(i))),
    "the query's own position is hidden": _with(end=lambda i: np.maximum(i["end"] - 1, i["begin"])),
    "begin is ignored: keys of an earlier document": _with(begin=lambda i: np.zeros_like(i["begin"])),
    "no causal mask: every key is seen": _with(end=lambda i: np.full_like(i["end"], _keys(i))),
}
_SOFTMAX = {
    "rope is not in the score": _no_rope,
    "the softmax scale is (R+P)^-1/2, not what was given": _head_size,
    "the softmax scale is left out": _scalars(scale=lambda s: 1.0),
}
_INDEXER = {
    "no relu": _scalars(relu=lambda s: 0),
    "the head weights of query 0 for every query": _with(w=lambda i: np.broadcast_to(i["w"][:1], i["w"].shape)),
    "head weights are left out": _with(w=lambda i: np.ones_like(i["w"])),
    **_RANGES,
}
_NORM = {
    "eps is left out": _scalars(eps=lambda s: 0.0),
    "the gain is one more than given": _with(g=lambda i: i["g"] + 1),
    "the gain is left out": _with(g=lambda i: np.ones_like(i["g"])),
}

SUSPECTS = {
    "indexer_scores": _INDEXER,
    "indexer_topk": _INDEXER,
    "mla_sparse": {
        "-1 is taken for key 0": _with(chosen=lambda i: np.maximum(i["chosen"], 0)),
        "the row ends at its first -1": _with(chosen=lambda i: _cut_at_first_hole(i["chosen"])),
        "the last chosen key is left out": _with(chosen=lambda i: _without_last(i["chosen"])),
        **_SOFTMAX,
    },
    "mla_dense": {**_RANGES, **_SOFTMAX},
    "mla_expanded": _RANGES,
    "rmsnorm": _NORM,
    "layernorm": {**_NORM, "the bias is left out": _with(b=lambda i: np.zeros_like(i["b"]))},
    "rope": {
        "the other layout of pairs": _scalars(interleaved=lambda s: 1 - s["interleaved"]),
        "turned backwards": _with(sin=lambda i: -i["sin"]),
        "not turned": _with(sin=lambda i: np.zeros_like(i["sin"]), cos=lambda i: np.ones_like(i["cos"])),
    },
    "swiglu": {"gate and up are swapped": _with(gate_up=lambda i: _swapped(i["gate_up"]))},
    "linear": {"the bias is left out": _with(bias=lambda i: np.zeros_like(i["bias"]))},
    "router": {
        "the correction bias is left out": _with(bias=lambda i: np.zeros_like(i["bias"])),
        "softmax and sigmoid are exchanged": _scalars(scoring=lambda s: 1 - s["scoring"]),
        "weights are not normalised": _scalars(norm_topk_prob=lambda s: 0),
        "routed_scaling_factor is left out": _scalars(routed_scaling_factor=lambda s: 1),
    },
}


def kinds(case, outputs):
    """The suspects that explain the wrong outputs of a case, as stored() gives them, within the bounds."""
    op, dtype, scalars = case.op, case.dtype, dict(case.scalars)
    inputs = {name: x.astype(np.int64) if stored == "I32" else x for name, (stored, x, _) in case.inputs().items()}
    found = []
    for kind, change in SUSPECTS.get(op, {}).items():
        try:
            changed, values = _changed(change, inputs, scalars)
            if all(v["ok"] for v in answer(op, changed, dtype, **values).case.judge(outputs)):
                found.append(kind)
        except (Error, KeyError, IndexError):
            continue  # the suspect does not apply to these inputs
    return found


def _changed(change, inputs, scalars):
    """Inputs and scalars with the bug. KeyError: they are what they were, or have not what the bug is about."""
    changed, values = change(inputs, scalars)
    if values == scalars and all(np.array_equal(changed[name], x, equal_nan=True) for name, x in inputs.items()):
        raise KeyError("the same inputs")
    return changed, values
