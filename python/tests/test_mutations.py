"""A thousand random arguments a function: an answer, an Error or a TypeError, and an interpreter that lives on."""
import inspect

import numpy as np
import pytest

import dsa
from dsa import reference, testing

N = 1000
NAMES = [name for name in reference.__all__ if inspect.isfunction(getattr(reference, name)) and name != "ops"]


def any_array(draw):
    shape = tuple(int(n) for n in draw.integers(0, 5, draw.integers(0, 5)))
    dtype = draw.choice(["f8", "f4", "f2", "i8", "i4", "u1", "u8", "b1", "c8", "O", "U1"])
    size = draw.choice([1.0, 5.0, 1e30])
    with np.errstate(invalid="ignore", over="ignore"):
        x = (draw.standard_normal(shape) * size).astype("f8")
        if dtype[0] in "iu":
            x = np.clip(x, -6, 6)
        x = np.asarray(x).astype(dtype)
    if x.size and x.dtype.kind == "f" and draw.random() < 0.3:
        x.reshape(-1)[draw.integers(x.size)] = draw.choice([np.nan, np.inf, -np.inf, -0.0])
    return x.T if draw.random() < 0.3 else x


def any_argument(draw):
    kind = draw.integers(12)
    if kind < 7:
        return any_array(draw)
    return [int(draw.integers(-3, 9)), float(draw.standard_normal()), None, "paper", float("nan"),
            draw.choice([2.0**40, -2.0**70, 1e308, True])][int(draw.integers(6))]


def fitting(draw, name):
    """An argument of about the right kind, so that many calls get beyond the first check."""
    if name in ("tokens", "rows", "targets", "documents", "load", "positions"):
        return draw.integers(-1, 4, draw.integers(0, 4))
    if name in ("chosen", "keys", "kept", "experts"):
        return draw.integers(-1, 4, (draw.integers(0, 4), draw.integers(0, 4)))
    if name in ("k", "n_group", "width", "vocab_size", "steps", "first"):
        return int(draw.integers(-1, 6))
    axes = int(draw.integers(1, 4))
    return draw.standard_normal(tuple(int(n) for n in draw.integers(1, 4, axes)))


def survives(call):
    """Whether it answered. Everything but the three ways a call may end passes through, and fails the test."""
    try:
        with np.errstate(all="ignore"):
            call()
        return True
    except (dsa.Error, TypeError, AssertionError):
        return False


@pytest.mark.parametrize("name", NAMES)
def test_reference(name):
    draw = np.random.default_rng(sum(name.encode()))
    function = getattr(reference, name)
    required = [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]
    for _ in range(N):
        wild = draw.choice([0.05, 0.3, 1.0])
        arguments = {p: any_argument(draw) if draw.random() < wild else fitting(draw, p) for p in required}
        survives(lambda: function(**arguments))


def any_answer(draw):
    op = draw.choice([*reference.ops(), "sparse_attention", "none"])
    facts = reference.ops().get(op, reference.ops()["mla_sparse"])
    sizes = {axis: int(draw.integers(0, 5)) for axis in "TSHDNRPKCFEVBUG?"}
    inputs = {}
    for name, axes in facts["inputs"].items():
        shape = tuple(sizes[axis] for axis in axes)
        x = draw.integers(-1, 5, shape) if name in ("begin", "end", "chosen", "tokens") else np.round(
            draw.standard_normal(shape) * 4)
        inputs[name] = x if draw.random() < 0.9 else any_argument(draw)
        if draw.random() < 0.05:
            del inputs[name]
    scalars = {name: float(draw.integers(0, 4)) if draw.random() < 0.9 else any_argument(draw)
               for name in facts["scalars"]}
    return op, inputs, str(draw.choice(["fp32", "bf16", "fp8"])), scalars


def test_answer_and_assert_close():
    draw = np.random.default_rng(7)
    answered = 0
    for _ in range(3 * N):
        op, inputs, dtype, scalars = any_answer(draw)
        answered += survives(lambda: reference.answer(op, inputs, dtype, **scalars))
        survives(lambda: testing.assert_close(any_argument(draw), op=op, inputs=inputs, dtype=dtype, **scalars))
    assert answered > 100  # so that more than the first check was reached


def test_assert_selection():
    draw = np.random.default_rng(8)
    for _ in range(N):
        scores = draw.standard_normal((3, 5)) if draw.random() < 0.7 else any_argument(draw)
        chosen = draw.integers(-2, 7, (3, 3)) if draw.random() < 0.7 else any_argument(draw)
        survives(lambda: testing.assert_selection(chosen, scores, any_argument(draw) if draw.random() < 0.3 else 3))


def test_cases():
    draw = np.random.default_rng(9)
    for _ in range(N):
        survives(lambda: testing.cases(any_argument(draw), seed=any_argument(draw), max_flops=0))
