"""Losses and the optimiser's step: reference/ops/{losses,adamw}.hpp."""
from dsa import _core
from dsa._arrays import flag, integers_of, number, numbers_of, whole


def cross_entropy(logits, targets, weights):
    """sum_t weights[t] ( log sum_v exp logits[t,v] - logits[t,targets[t]] ), a float in nats.

    logits (T, V), targets (T) with -1 for none, weights (T): a mean is 1 / count where counted.
    """
    return _core.cross_entropy(numbers_of("logits", logits, 2), integers_of("targets", targets, 1),
                               numbers_of("weights", weights, 1))


def cross_entropy_backward(logits, targets, weights):
    """d_logits (T, V) = weights (softmax - one-hot)."""
    return _core.cross_entropy_backward(numbers_of("logits", logits, 2), integers_of("targets", targets, 1),
                                        numbers_of("weights", weights, 1))


def balance_loss(s, experts, documents, alpha):
    """alpha sum_e f_e P_e, sequence-wise, the mean over documents; V3 (arXiv 2412.19437) eq. (17)-(20).

    s (T, E) scores, experts (T, k) chosen, documents (T) with -1 for padding.
    """
    return _core.balance_loss(numbers_of("s", s, 2), integers_of("experts", experts, 2),
                              integers_of("documents", documents, 1), number("alpha", alpha))


def balance_loss_backward(s, experts, documents, alpha):
    """d_s (T, E) of balance_loss; the counts f are constants."""
    return _core.balance_loss_backward(numbers_of("s", s, 2), integers_of("experts", experts, 2),
                                       integers_of("documents", documents, 1), number("alpha", alpha))


def update_router_bias(bias, load, gamma):
    """bias (E) after a step: gamma less for experts with more than the mean load (E), gamma more for the others."""
    return _core.update_router_bias(numbers_of("bias", bias, 1), integers_of("load", load, 1), number("gamma", gamma))


def adamw_step(p, m, v, gradient, *, lr, steps, clip_factor=1.0, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1,
               decoupled=True, decayed=True, eps_inside_root=False, bias_correction=True):
    """(p, m, v) after one step of AdamW; all (n). steps: how many were taken, this one included.

    arXiv 1412.6980, algorithm 1, and 1711.05101, algorithm 2, as torch.optim.AdamW writes it.
    """
    options = {"beta1": number("beta1", beta1), "beta2": number("beta2", beta2), "eps": number("eps", eps),
               "weight_decay": number("weight_decay", weight_decay), "decoupled": flag("decoupled", decoupled),
               "eps_inside_root": flag("eps_inside_root", eps_inside_root),
               "bias_correction": flag("bias_correction", bias_correction)}
    return _core.adamw_step(numbers_of("p", p, 1), numbers_of("m", m, 1), numbers_of("v", v, 1),
                            numbers_of("gradient", gradient, 1), options, number("lr", lr),
                            number("clip_factor", clip_factor), whole("steps", steps, 1), flag("decayed", decayed))


def clip_factor(norm, max_norm=1.0, eps=1e-6):
    """min(1, max_norm / (norm + eps)): what every gradient is multiplied with; 1 where max_norm is 0."""
    return _core.clip_factor(number("norm", norm), number("max_norm", max_norm), number("eps", eps))
