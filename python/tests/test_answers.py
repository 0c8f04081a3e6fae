"""Answers to inputs of one's own are the suite's answers."""
import numpy as np
import pytest

import dsa
from dsa import _core
from dsa.reference import answer, ops

ALL = [(name, dtype) for name, facts in ops().items() for dtype in facts["dtypes"]]


@pytest.mark.parametrize("op, dtype", ALL)
def test_inputs_of_the_suite_get_the_answers_of_the_suite(op, dtype):
    """Every small case that has an answer, and no exact sums, which only the suite may count on."""
    tried = 0
    for pose in _core.suite(op, 3):
        if pose.dtype != dtype or pose.flops > 2e5:
            continue
        case = pose()
        if case.refusal or "-dyadic" in case.name:
            continue
        inputs = {name: x for name, (_, x, _) in case.inputs().items()}
        scalars = case.scalars
        given = _core.given(op, dtype, inputs, scalars)
        assert set(given.want()) == set(case.want())
        for name, want in case.want().items():
            assert np.array_equal(given.want()[name], want, equal_nan=True), (case.name, name)
            assert np.array_equal(given.allowed()[name], case.allowed()[name]), (case.name, name)
        tried += 1
    assert tried > 0


def test_the_answer_itself_is_within_its_bounds(draw):
    q, k, w = (draw.standard_normal(shape).astype(np.float32) for shape in ((3, 2, 8), (5, 8), (3, 2)))
    wanted = answer("indexer_scores", {"q": q, "k": k, "w": w})
    exact = dsa.reference.indexer_scores(q, k, w)
    assert np.array_equal(wanted.want["scores"], exact)
    allowed = wanted.allowed["scores"]
    assert np.all(allowed >= 0) and 0 < allowed.max() < 1e-4  # 0: every head is cut off by relu
    single = np.einsum("thd,sd->ths", q, k, dtype=np.float32)
    single = (np.maximum(single, 0) * w[:, :, None]).sum(1)
    seen = np.isfinite(exact)
    assert np.all(np.abs(single - np.where(seen, exact, 0))[seen] <= allowed[seen])


def test_a_narrower_dtype_is_allowed_more(draw):
    x, g = (np.round(draw.standard_normal(shape) * 8) / 8 for shape in ((3, 32), 32))
    bounds = [answer("rmsnorm", {"x": x, "g": g}, dtype).allowed["y"] for dtype in ("fp32", "bf16")]
    assert np.median(bounds[1] / bounds[0]) > 1e3  # a zero is exact in both


@pytest.mark.parametrize("op, inputs, dtype, scalars, says", [
    ("nothing", {}, "fp32", {}, "there is no op"),
    ("rmsnorm", {"x": np.ones((2, 3)), "g": np.ones(3)}, "fp8", {}, "dtype fp8"),
    ("rmsnorm", {"x": np.ones((2, 3))}, "fp32", {}, "needs the input g"),
    ("rmsnorm", {"x": np.ones((2, 3)), "g": np.ones(4)}, "fp32", {}, "with C = 3"),
    ("rmsnorm", {"x": np.ones((2, 3)), "g": np.ones(3), "h": np.ones(3)}, "fp32", {}, "no input called h"),
    ("rmsnorm", {"x": np.full((2, 3), 0.1), "g": np.ones(3)}, "fp32", {}, "round the input first"),
    ("rmsnorm", {"x": np.full((2, 3), np.nan), "g": np.ones(3)}, "fp32", {}, "no finite bound"),
    ("topk_select", {"scores": np.ones((2, 3))}, "fp32", {}, "needs the scalar topk"),
    ("topk_select", {"scores": np.ones((2, 3))}, "fp32", {"topk": 1.5}, "whole number"),
    ("rope", {"x": np.ones((1, 1, 4)), "cos": np.ones((1, 3)), "sin": np.ones((1, 3))}, "fp32", {"interleaved": 1},
     "channels"),
    ("sparse_attention", {"q": np.ones((1, 1, 4)), "kv": np.ones((2, 4)), "chosen": [[5]]}, "fp32",
     {"scale": 1, "R": 3}, "key 5"),
    ("router", {"logits": np.ones((1, 6))}, "fp32", {"num_experts_per_tok": 9}, "expected 1 to 6"),
    ("linear", {"x": np.ones((1, 2)), "w": np.ones((3, 2))}, "fp8", {}, "x_scale"),
])
def test_what_has_no_answer_is_one_sentence(op, inputs, dtype, scalars, says):
    with pytest.raises(dsa.Error, match=says) as caught:
        answer(op, inputs, dtype, **scalars)
    assert "\n" not in str(caught.value)
