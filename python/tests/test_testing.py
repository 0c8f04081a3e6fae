"""assert_close, assert_selection, cases: right outputs pass, wrong ones fail with their kind."""
import numpy as np
import pytest

import dsa
from dsa.reference import answer
from dsa.testing import assert_close, assert_selection, cases


def scores_of(draw, shape=(4, 12)):
    scores = draw.standard_normal(shape)
    return np.where(np.arange(shape[1]) <= np.arange(shape[0])[:, None] + shape[1] - shape[0], scores, -np.inf)


def best(scores, k):
    return dsa.reference.topk_select(scores, k)


@pytest.mark.parametrize("spoil, kind", [
    (lambda c, s: c.__setitem__((0, 0), 11), "a future key"),
    (lambda c, s: c.__setitem__((1, 1), c[1, 0]), "a duplicate"),
    (lambda c, s: c.__setitem__((2, 0), -1), "-1 in the middle"),
    (lambda c, s: c.__setitem__((3, 4), -1), "a wrong count"),
    (lambda c, s: c.__setitem__((3, 4), 99), "a subscript that is no key"),
    (lambda c, s: c.__setitem__((3, 4), int(np.argmin(s[3]))), "a key that is too weak"),
])
def test_wrong_selections_are_told_apart(spoil, kind, draw):
    scores = scores_of(draw)
    chosen = best(scores, 5)
    assert_selection(chosen, scores, 5)
    assert_selection(chosen[:, ::-1], scores, 5)
    spoil(chosen, scores)
    with pytest.raises(AssertionError, match="kind: " + kind):
        assert_selection(chosen, scores, 5)


def test_ties_and_errors_of_the_scores_are_free():
    scores = np.array([[1.0, 1.0, 1.0 - 1e-7, 0.5]])
    assert_selection([[1]], scores, 1)
    assert_selection([[2]], scores, 1, allowed=np.full((1, 4), 1e-7))
    with pytest.raises(AssertionError, match="too weak"):
        assert_selection([[2]], scores, 1, allowed=np.full((1, 4), 1e-8))
    with pytest.raises(AssertionError, match="2 times what the scores may be wrong by|apart"):
        assert_selection([[3]], scores, 1, allowed=np.full((1, 4), 0.125))


def test_rows_that_see_nothing_choose_nothing():
    scores = np.full((1, 3), -np.inf)
    assert_selection([[-1, -1]], scores, 2)
    with pytest.raises(AssertionError, match="a future key"):
        assert_selection([[0, -1]], scores, 2)


def indexer_inputs(draw):
    return {name: draw.standard_normal(shape).astype(np.float32)
            for name, shape in (("q", (4, 3, 16)), ("k", (20, 16)), ("w", (4, 3)))}


def test_a_failure_says_where_how_far_and_how_near_the_threshold(draw):
    inputs = indexer_inputs(draw)
    wanted = answer("indexer_scores", inputs)
    right = wanted.want["scores"]
    assert_close(right, op="indexer_scores", inputs=inputs)
    wrong = right.copy()
    wrong[2, 5] += 7 * wanted.allowed["scores"][2, 5]
    with pytest.raises(AssertionError) as caught:
        assert_close(wrong, op="indexer_scores", inputs=inputs, topk=6)
    said = str(caught.value)
    assert "1 of 80 elements" in said and "worst at (2, 5)" in said and "7 times the" in said
    assert "the k-th score of row 2" in said and "from the k-th score" in said


@pytest.mark.parametrize("change, kind", [
    (dict(relu=0), "no relu"),
    (dict(w=lambda i: np.broadcast_to(i["w"][:1], (4, 3))), "the head weights of query 0"),
    (dict(end=lambda i: np.arange(17, 21).clip(max=20) + np.array([1, 1, 1, 0])), "a future key"),
])
def test_the_kind_of_a_wrong_indexer_is_named(change, kind, draw):
    inputs = indexer_inputs(draw)
    scalars = {n: x for n, x in change.items() if not callable(x)}
    spoilt = {**inputs, **{n: f(inputs) for n, f in change.items() if callable(f)}}
    if "end" in spoilt:
        spoilt["begin"] = np.zeros(4, np.int64)
    wrong = answer("indexer_scores", spoilt, **scalars).want["scores"]
    with pytest.raises(AssertionError, match="kind: .*" + kind):
        assert_close(wrong, op="indexer_scores", inputs=inputs)


def test_an_output_in_bf16_is_allowed_its_own_rounding(draw):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, g = draw.standard_normal((3, 16)).astype(np.float32), np.ones(16, np.float32)
    y = answer("rmsnorm", {"x": x, "g": g}).want["y"]
    assert_close(y.astype(ml_dtypes.bfloat16), op="rmsnorm", inputs={"x": x, "g": g})
    with pytest.raises(AssertionError, match="kind: none"):
        assert_close(y * (1 + 2.0**-6), op="rmsnorm", inputs={"x": x, "g": g})


def test_nan_is_wrong(draw):
    x, g = draw.standard_normal((3, 16)).astype(np.float32), np.ones(16, np.float32)
    y = answer("rmsnorm", {"x": x, "g": g}).want["y"].copy()
    y[1, 2] = np.nan
    with pytest.raises(AssertionError, match="1 NaN or infinite"):
        assert_close(y, op="rmsnorm", inputs={"x": x, "g": g})


def test_several_outputs_and_their_names(draw):
    inputs = {"q": draw.standard_normal((2, 2, 6)).astype(np.float32), "kv": draw.standard_normal((5, 6)).astype(np.float32),
              "chosen": np.array([[0, 3], [4, -1]])}
    options = dict(op="sparse_attention", inputs=inputs, scale=0.5, R=4)
    wanted = answer("sparse_attention", inputs, scale=0.5, R=4)
    assert_close(wanted.want, **options)
    assert_close(wanted.want["out"], **options)
    with pytest.raises(AssertionError, match="lse"):
        assert_close({**wanted.want, "lse": wanted.want["lse"] / np.log(2)}, **options)
    with pytest.raises(dsa.Error, match="no output called 'o'"):
        assert_close({"o": wanted.want["out"]}, **options)
    with pytest.raises(dsa.Error, match="expected \\(2, 2, 4\\)"):
        assert_close(wanted.want["out"][:1], **options)


def test_cases_have_the_ugly_shapes_and_say_what_shows_nothing():
    found = {case.name: case for case in cases("sparse_attention", seed=5)}
    for tag in ("k+1", "k=1", "blind"):
        assert any(name.endswith("edge-" + tag) and not case.skip for name, case in found.items()), tag
    for tag in ("k", "k-1"):
        skipped = next(case for name, case in found.items() if name.endswith("edge-" + tag))
        assert "every key is selected" in skipped.skip
    for op in ("indexer_topk", "topk_select"):
        assert any("ties" in case.name for case in cases(op))


def test_a_case_judges_the_definition_as_right():
    for op in ("indexer_scores", "indexer_topk", "topk_select", "sparse_attention", "rmsnorm", "rope", "router"):
        tried = 0
        for case in cases(op, max_flops=2e5):
            case.check({name: x for name, x in case.want.items() if name in case.case.outputs()})
            tried += 1
        assert tried > 0
