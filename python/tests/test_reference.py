"""The definition as Python calls it: worked by numpy, and gradients held against differences of the forward pass."""
import numpy as np
import pytest

import dsa
from dsa import reference

STEP = 2.0**-17


def slope(f, arguments, name, direction):
    """The derivative of f along a direction of one argument, by a central difference: exact to STEP^2."""
    ahead, behind = dict(arguments), dict(arguments)
    ahead[name] = arguments[name] + STEP * direction
    behind[name] = arguments[name] - STEP * direction
    return (f(**ahead) - f(**behind)) / (2 * STEP)


# name -> (forward, backward, differentiable arguments, the rest), by a draw.
def ops_with_gradients(draw):
    normal = draw.standard_normal
    chosen = np.array([[0, 2, -1], [1, 3, 4], [0, 1, 2]])
    mla = {"q_nope": normal((3, 2, 4)), "q_rope": normal((3, 2, 2)), "k_rope": normal((5, 2))}
    angles = normal((3, 2))
    turn = {"cos": np.cos(angles), "sin": np.sin(angles), "interleaved": True}
    s = draw.uniform(0.1, 0.9, (3, 6))
    experts = np.array([[0, 3], [2, 5], [1, 4]])
    return {
        "embed": ({"table": normal((7, 4))}, {"tokens": np.array([3, 0, 3])}),
        "linear": ({"x": normal((3, 5)), "w": normal((4, 5)), "bias": normal(4)}, {}),
        "rmsnorm": ({"x": normal((3, 5)), "g": normal(5)}, {}),
        "layernorm": ({"x": normal((3, 5)), "g": normal(5), "b": normal(5)}, {}),
        "hadamard": ({"x": normal((3, 8))}, {}),
        "rope": ({"x": normal((3, 2, 4))}, turn),
        "swiglu": ({"gate": normal((3, 5)), "up": normal((3, 5))}, {}),
        "accumulate": ({"y": normal((4, 3)), "x": normal((2, 3)), "weights": normal(2)}, {"rows": np.array([3, 3])}),
        "indexer_scores": ({"q": normal((3, 2, 4)), "k": normal((3, 4)), "w": normal((3, 2))}, {}),
        "mla_expanded": ({**mla, "kv": normal((5, 2, 7))}, {"chosen": chosen, "scale": 0.7}),
        "mla_absorbed": ({**mla, "c_kv": normal((5, 6)), "kv_b": normal((2, 7, 6))}, {"chosen": chosen, "scale": 0.7}),
        "router_scores": ({"z": normal((3, 6))}, {"scoring": "softmax"}),
        "router_weights": ({"s": s}, {"experts": experts, "scale": 2.5}),
        "cross_entropy": ({"logits": normal((3, 6))}, {"targets": np.array([1, -1, 5]), "weights": np.array([.5, .5, .2])}),
        "balance_loss": ({"s": s}, {"experts": experts, "documents": np.array([0, 0, 1]), "alpha": 0.3}),
        "index_kl": ({"scores": normal((3, 5))}, {"u": draw.uniform(0.1, 1, (3, 5)), "keys": chosen,
                                                   "weights": np.array([.2, .3, .5])}),
    }


def gradient(name, inputs, rest, d_out):
    """{argument: gradient}, whatever shape the backward function's arguments and results have."""
    call = getattr(reference, name + "_backward")
    if name == "embed":
        return {"table": call(rest["tokens"], d_out, len(inputs["table"]))}
    if name == "linear":
        d = call(inputs["x"], inputs["w"], d_out)
    elif name in ("rmsnorm", "layernorm"):
        d = call(inputs["x"], inputs["g"], d_out)
    elif name == "hadamard":
        return {"x": call(d_out)}
    elif name == "rope":
        return {"x": call(d_out, **rest)}
    elif name == "accumulate":
        d = {**call(inputs["x"], rest["rows"], inputs["weights"], d_out), "d_y": d_out}
    elif name == "router_scores":
        return {"z": call(reference.router_scores(**inputs, **rest), d_out, **rest)}
    elif name in ("cross_entropy", "balance_loss", "index_kl"):
        return {next(iter(inputs)): call(**inputs, **rest) * d_out}
    else:
        d_name = {"swiglu": "d_h", "indexer_scores": "d_scores", "router_weights": "d_weights"}.get(name, "d_out")
        d = call(**inputs, **rest, **{d_name: d_out})
    return {key.removeprefix("d_"): x for key, x in d.items()} if isinstance(d, dict) else {next(iter(inputs)): d}


@pytest.mark.parametrize("name", list(ops_with_gradients(np.random.default_rng(1))))
def test_gradients_are_slopes(name, draw):
    inputs, rest = ops_with_gradients(draw)[name]
    forward = getattr(reference, name)
    out = np.asarray(forward(**inputs, **rest))
    seen = np.isfinite(out)
    d_out = np.where(seen, draw.standard_normal(out.shape), 0.0)

    def loss(**arguments):
        return float(np.sum(np.where(seen, np.where(seen, forward(**arguments, **rest), 0) * d_out, 0)))

    got = gradient(name, inputs, rest, d_out if out.shape else float(d_out))
    assert set(got) == set(inputs)
    for argument, x in inputs.items():
        direction = draw.standard_normal(x.shape)
        want = slope(loss, inputs, argument, direction)
        # Truncation STEP^2 ~ 6e-11 times a third derivative below 1e3; rounding 1e-16 / STEP times the size.
        assert abs(np.sum(got[argument] * direction) - want) < 1e-6 * (1 + abs(want)), argument


def test_rmsnorm_by_hand():
    y = reference.rmsnorm(np.array([[3.0, 4.0]]), np.array([1.0, 2.0]), eps=0.0)
    assert np.allclose(y, [[3 / np.sqrt(12.5), 8 / np.sqrt(12.5)]], rtol=1e-15)


def test_scores_hide_later_keys_and_other_documents():
    q, k, w = np.ones((4, 1, 2)), np.ones((4, 2)), np.ones((4, 1))
    scores = reference.indexer_scores(q, k, w, documents=np.array([0, 0, 1, -1]))
    seen = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    assert np.array_equal(scores, np.where(seen, 2.0, -np.inf))


def test_topk_breaks_ties_downwards():
    chosen = reference.topk_select(np.array([[1.0, 2.0, 2.0, -np.inf]]), 4)
    assert chosen.tolist() == [[1, 2, 0, -1]]


def test_router_by_hand():
    s = reference.router_scores(np.array([[0.0, 1.0, -1.0, 2.0]]))
    assert np.allclose(s, 1 / (1 + np.exp([[0.0, -1.0, 1.0, -2.0]])), rtol=1e-15)
    groups = reference.router_group_scores(s, 2)
    assert np.allclose(groups, [[s[0, 0] + s[0, 1], s[0, 2] + s[0, 3]]], rtol=1e-15)
    left = reference.router_drop_groups(s, np.array([[1]]), 2)
    assert np.isneginf(left[0, :2]).all() and np.array_equal(left[0, 2:], s[0, 2:])


def test_adamw_first_step():
    p, m, v = reference.adamw_step([1.0], [0.0], [0.0], [2.0], lr=0.1, steps=1, weight_decay=0.0, eps=0.0)
    assert np.allclose([p[0], m[0], v[0]], [0.9, 0.2, 0.2], rtol=1e-14)
    assert reference.clip_factor(2.0, max_norm=1.0, eps=0.0) == 0.5


def test_rope_table_of_position_0_and_1():
    cos, sin = reference.rope_table([0, 1], 4, theta=100.0)
    assert np.allclose(cos, np.cos([[0, 0], [1, 0.1]]), rtol=1e-15)
    assert np.allclose(sin, np.sin([[0, 0], [1, 0.1]]), rtol=1e-15)


@pytest.mark.parametrize("call, says", [
    (lambda: reference.rmsnorm(np.ones((2, 3)), np.ones(4)), "g has shape"),
    (lambda: reference.embed([9], np.ones((4, 2))), "outside the vocabulary"),
    (lambda: reference.mla_expanded(np.ones((1, 1, 2)), np.ones((1, 1, 1)), np.ones((2, 1, 3)), np.ones((2, 1)), [[7]], 1.0),
     "key 7"),
    (lambda: reference.router_weights(np.ones((1, 2)), [[2]]), "experts holds 2"),
    (lambda: reference.hadamard(np.ones((1, 3))), "power"),
    (lambda: reference.router_group_scores(np.ones((1, 4)), 3), "groups of one size"),
    (lambda: reference.topk_select(np.array([[np.nan]]), 1), "NaN"),
    (lambda: reference.rmsnorm(np.ones(3), np.ones(3)), "expected 2 axes"),
])
def test_wrong_arguments_are_one_sentence(call, says):
    with pytest.raises(dsa.Error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
