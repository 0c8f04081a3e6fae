"""Rows, norms, products and rotations: reference/ops/{embed,linear,norms,rope,hadamard,swiglu,accumulate}.hpp."""
from dsa import _core
from dsa._arrays import flag, integers_of, number, numbers_of, whole
from dsa._errors import require


def embed(tokens, table):
    """x[t,:] = table[tokens[t],:]. tokens (T) whole numbers, table (V, C); x (T, C)."""
    return _core.embed(integers_of("tokens", tokens, 1), numbers_of("table", table, 2))


def embed_backward(tokens, d_x, vocab_size):
    """d_table (V, C) of embed, d_x (T, C): d_table[tokens[t]] += d_x[t]."""
    return _core.embed_backward(integers_of("tokens", tokens, 1), numbers_of("d_x", d_x, 2),
                                whole("vocab_size", vocab_size, 0, 2**24))


def linear(x, w, bias=None):
    """y[t,o] = sum_i w[o,i] x[t,i] + bias[o]. x (T, C), w (F, C), bias (F); y (T, F)."""
    return _core.linear(numbers_of("x", x, 2), numbers_of("w", w, 2),
                        None if bias is None else numbers_of("bias", bias, 1))


def linear_backward(x, w, d_y):
    """d_x = d_y w, d_w = d_y^T x, d_bias = sum_t d_y. d_y (T, F)."""
    return _core.linear_backward(numbers_of("x", x, 2), numbers_of("w", w, 2), numbers_of("d_y", d_y, 2))


def rmsnorm(x, g, eps=1e-6):
    """y[t,c] = g[c] x[t,c] / sqrt( mean_c x[t,c]^2 + eps ). x (T, C), g (C)."""
    return _core.rmsnorm(numbers_of("x", x, 2), numbers_of("g", g, 1), number("eps", eps))


def rmsnorm_backward(x, g, d_y, eps=1e-6):
    """d_x (T, C) and d_g (C) of rmsnorm."""
    return _core.rmsnorm_backward(numbers_of("x", x, 2), numbers_of("g", g, 1), numbers_of("d_y", d_y, 2),
                                  number("eps", eps))


def layernorm(x, g, b, eps=1e-6):
    """y[t,c] = g[c] (x[t,c] - mean) / sqrt( variance + eps ) + b[c]; the biased variance. x (T, C), g and b (C)."""
    return _core.layernorm(numbers_of("x", x, 2), numbers_of("g", g, 1), numbers_of("b", b, 1), number("eps", eps))


def layernorm_backward(x, g, d_y, eps=1e-6):
    """d_x (T, C), d_g and d_b (C) of layernorm."""
    return _core.layernorm_backward(numbers_of("x", x, 2), numbers_of("g", g, 1), numbers_of("d_y", d_y, 2),
                                    number("eps", eps))


def hadamard(x):
    """y = H_D x / sqrt(D), Sylvester's matrix, D a power of two. x (rows, D)."""
    return _core.hadamard(numbers_of("x", x, 2))


def hadamard_backward(d_y):
    """d_x = H_D d_y / sqrt(D): the matrix is symmetric. d_y (rows, D)."""
    return _core.hadamard_backward(numbers_of("d_y", d_y, 2))


def rope_table(positions, width, theta=10000.0, yarn=None):
    """cos and sin (T, P/2) of positions (T), P = width; angle = position theta^(-2i/P).

    yarn: None, or a dict with factor and original_max_position_embeddings, and where they differ from the published
    ones beta_fast, beta_slow, mscale and mscale_all_dim (arXiv 2309.00071).
    """
    parameters = {"theta": number("theta", theta), "yarn": yarn is not None}
    require(yarn is None or isinstance(yarn, dict), f"yarn is {type(yarn).__name__}, expected a dict or None")
    known = ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
    for name, value in (yarn or {}).items():
        require(name in known, f"yarn has no parameter {name}, expected one of {', '.join(known)}")
        parameters[name] = number(name, value)
    for name in known[:2]:
        require(yarn is None or parameters.get(name, 0) > 0, f"yarn needs a positive {name}")
    return _core.rope_table(integers_of("positions", positions, 1), whole("width", width, 0, 65536), parameters)


def rope(x, cos, sin, interleaved):
    """Pair i of every head turned: (a, b) -> (a cos - b sin, b cos + a sin). x (T, heads, P), cos and sin (T, P/2).

    interleaved: pairs are channels (2i, 2i+1), as in MLA; otherwise (i, i + P/2), as in the indexer.
    """
    return _turned(x, cos, sin, interleaved, False)


def rope_backward(d_x, cos, sin, interleaved):
    """The turn backwards. d_x (T, heads, P)."""
    return _turned(d_x, cos, sin, interleaved, True)


def _turned(x, cos, sin, interleaved, backward):
    return _core.rope(numbers_of("x", x, 3), numbers_of("cos", cos, 2), numbers_of("sin", sin, 2),
                      flag("interleaved", interleaved), backward)


def swiglu(gate, up):
    """h = silu(gate) up, silu(z) = z sigmoid(z). All (T, F)."""
    return _core.swiglu(numbers_of("gate", gate, 2), numbers_of("up", up, 2))


def swiglu_backward(gate, up, d_h):
    """d_gate and d_up (T, F) of swiglu."""
    return _core.swiglu_backward(numbers_of("gate", gate, 2), numbers_of("up", up, 2), numbers_of("d_h", d_h, 2))


def accumulate(y, x, rows, weights):
    """y[rows[i],:] + weights[i] x[i,:], summed over i. y (T, C), x (n, C), rows and weights (n); y itself stays."""
    return _core.accumulate(numbers_of("y", y, 2), numbers_of("x", x, 2), integers_of("rows", rows, 1),
                            numbers_of("weights", weights, 1))


def accumulate_backward(x, rows, weights, d_y):
    """d_x (n, C) and d_weights (n) of accumulate; d_y itself passes on to y."""
    return _core.accumulate_backward(numbers_of("x", x, 2), integers_of("rows", rows, 1),
                                     numbers_of("weights", weights, 1), numbers_of("d_y", d_y, 2))


def add(y, x):
    """y + x, the residual stream. Both (T, C)."""
    y, x = numbers_of("y", y, 2), numbers_of("x", x, 2)
    require(x.shape == y.shape, f"x has shape {x.shape}, expected {y.shape}")
    return y + x


def add_backward(d_y):
    """d_y passes to both sides. d_y (T, C)."""
    d_y = numbers_of("d_y", d_y, 2)
    return {"d_y": d_y.copy(), "d_x": d_y.copy()}
