"""Multi-head latent attention over the chosen keys: reference/ops/mla.hpp."""
from dsa import _core
from dsa._arrays import integers_of, number, numbers_of


def _expanded(q_nope, q_rope, kv, k_rope, chosen):
    return (numbers_of("q_nope", q_nope, 3), numbers_of("q_rope", q_rope, 3), numbers_of("kv", kv, 3),
            numbers_of("k_rope", k_rope, 2), integers_of("chosen", chosen, 2))


def _absorbed(q_nope, q_rope, c_kv, k_rope, kv_b, chosen):
    return (numbers_of("q_nope", q_nope, 3), numbers_of("q_rope", q_rope, 3), numbers_of("c_kv", c_kv, 2),
            numbers_of("k_rope", k_rope, 2), numbers_of("kv_b", kv_b, 3), integers_of("chosen", chosen, 2))


def mla_expanded(q_nope, q_rope, kv, k_rope, chosen, scale):
    """out[t,n,:] = sum_s softmax_s( scale q[t,n,:] . k[s,n,:] ) v[s,n,:], s in chosen[t,:].

    q_nope (T, N, B), q_rope (T, N, P), kv (S, N, B+U) = [k_nope | v], k_rope (S, P), chosen (T, K) with -1 for none;
    out (T, N, U), zeros where nothing is chosen. DeepSeek-V2 (arXiv 2405.04434) section 2.1.
    """
    return _core.mla_expanded(*_expanded(q_nope, q_rope, kv, k_rope, chosen), number("scale", scale))


def mla_expanded_backward(q_nope, q_rope, kv, k_rope, chosen, d_out, scale):
    """d_q_nope, d_q_rope, d_kv and d_k_rope of mla_expanded. d_out (T, N, U)."""
    return _core.mla_expanded_backward(*_expanded(q_nope, q_rope, kv, k_rope, chosen), numbers_of("d_out", d_out, 3),
                                       number("scale", scale))


def mla_absorbed(q_nope, q_rope, c_kv, k_rope, kv_b, chosen, scale):
    """The same, from the latent: keys and values of every head are made of c_kv (S, R) by kv_b (N, B+U, R) =
    [W_UK | W_UV]; W_UK moves to the query and W_UV behind the sum. out (T, N, U)."""
    return _core.mla_absorbed(*_absorbed(q_nope, q_rope, c_kv, k_rope, kv_b, chosen), number("scale", scale))


def mla_absorbed_backward(q_nope, q_rope, c_kv, k_rope, kv_b, chosen, d_out, scale):
    """d_q_nope, d_q_rope, d_c_kv, d_k_rope and d_kv_b of mla_absorbed. d_out (T, N, U)."""
    return _core.mla_absorbed_backward(*_absorbed(q_nope, q_rope, c_kv, k_rope, kv_b, chosen),
                                       numbers_of("d_out", d_out, 3), number("scale", scale))


def attention_mass(q_nope, q_rope, kv, k_rope, chosen, kept, scale):
    """u (T, S): the attention that every key of kept (T, K) gets, the heads' softmax over chosen summed; 0 elsewhere.
    The indexer's teacher is u over its sum."""
    return _core.attention_mass(*_expanded(q_nope, q_rope, kv, k_rope, chosen), integers_of("kept", kept, 2),
                                number("scale", scale))
