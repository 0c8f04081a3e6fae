"""Which experts a token goes to, and with what weight: reference/ops/router.hpp."""
from dsa import _core
from dsa._arrays import flag, integers_of, number, numbers_of, whole
from dsa._errors import require


def _one_of(name, x, choices):
    require(x in choices if isinstance(x, str) else False, f"{name} is {x!r:.80}, expected {' or '.join(choices)}")
    return x == choices[1]


def router_scores(z, scoring="sigmoid"):
    """s = sigmoid(z) (V3, V3.2, GLM) or softmax_e z (scoring "softmax": V2). Both (T, E)."""
    return _core.router_scores(numbers_of("z", z, 2), _one_of("scoring", scoring, ("sigmoid", "softmax")))


def router_scores_backward(s, d_s, scoring="sigmoid"):
    """d_z (T, E), of the scores s and their gradient."""
    return _core.router_scores_backward(numbers_of("s", s, 2), numbers_of("d_s", d_s, 2),
                                        _one_of("scoring", scoring, ("sigmoid", "softmax")))


def router_group_scores(choice, n_group, rule="sum_of_two"):
    """groups (T, G): each group's two best of choice (T, E) summed (V3), or its best (rule "maximum": V2)."""
    return _core.router_group_scores(numbers_of("choice", choice, 2), whole("n_group", n_group, 1),
                                     _one_of("rule", rule, ("sum_of_two", "maximum")))


def router_drop_groups(choice, kept, n_group, dropped=float("-inf")):
    """choice (T, E), with `dropped` for experts of groups not in kept (T, topk_group)."""
    return _core.router_drop_groups(numbers_of("choice", choice, 2), integers_of("kept", kept, 2),
                                    whole("n_group", n_group, 1), number("dropped", dropped))


def router_weights(s, experts, normalise=True, scale=1.0):
    """weights = s[experts] / (sum + 1e-20 if normalise) scale. s (T, E), experts and weights (T, k)."""
    return _core.router_weights(numbers_of("s", s, 2), integers_of("experts", experts, 2),
                                flag("normalise", normalise), number("scale", scale))


def router_weights_backward(s, experts, d_weights, normalise=True, scale=1.0):
    """d_s (T, E) of router_weights. d_weights (T, k)."""
    return _core.router_weights_backward(numbers_of("s", s, 2), integers_of("experts", experts, 2),
                                         numbers_of("d_weights", d_weights, 2), flag("normalise", normalise),
                                         number("scale", scale))
