"""The lightning indexer: reference/ops/{indexer_scores,topk_select,index_kl}.hpp."""
import numpy as np

from dsa import _core
from dsa._arrays import flag, integers_of, number, numbers_of, whole
from dsa._errors import require


def _visibility(queries, keys, first, documents):
    """(first, documents) as the reference takes them; by default one document whose last T tokens are the queries."""
    documents = np.zeros(keys, np.int64) if documents is None else integers_of("documents", documents, 1)
    first = keys - queries if first is None else whole("first", first)
    require(first >= 0, f"there are {queries} queries and {keys} keys, expected at least a key a query, or first")
    return first, documents


def indexer_scores(q, k, w, *, dot_scale=1.0, weight_scale=1.0, relu=True, first=None, documents=None):
    """scores[t,s] = sum_h weight_scale w[t,h] relu( dot_scale q[t,h,:] . k[s,:] ), -inf where t may not see s.

    q (T, H, D), k (S, D), w (T, H); scores (T, S). The query t is the token first + t (default: the last T of the S
    keys); it sees keys that are not later and of its own document; documents (S), -1: padding. The published models
    have dot_scale D^-1/2 and weight_scale H^-1/2. DeepSeek-V3.2 (arXiv 2512.02556), eq. (1).
    """
    q, k = numbers_of("q", q, 3), numbers_of("k", k, 2)
    first, documents = _visibility(q.shape[0], k.shape[0], first, documents)
    return _core.indexer_scores(q, k, numbers_of("w", w, 2), number("dot_scale", dot_scale),
                                number("weight_scale", weight_scale), flag("relu", relu), first, documents)


def indexer_scores_backward(q, k, w, d_scores, *, dot_scale=1.0, weight_scale=1.0, relu=True, first=None,
                            documents=None):
    """d_q, d_k and d_w of indexer_scores. d_scores (T, S) is not read where a query sees no key."""
    q, k = numbers_of("q", q, 3), numbers_of("k", k, 2)
    first, documents = _visibility(q.shape[0], k.shape[0], first, documents)
    return _core.indexer_scores_backward(q, k, numbers_of("w", w, 2), numbers_of("d_scores", d_scores, 2),
                                         number("dot_scale", dot_scale), number("weight_scale", weight_scale),
                                         flag("relu", relu), first, documents)


def topk_select(scores, k):
    """chosen (T, k): the min(k, visible) subscripts of largest scores (T, S), best first, then -1.

    A score of -inf is invisible. Of equal scores the lower subscript comes first. NaN is an Error.
    """
    return _core.topk_select(numbers_of("scores", scores, 2), whole("k", k, 0, 2**20))


def index_kl(scores, u, keys, weights, semantics="paper", warmup=False, scale=1.0):
    """The indexer's loss: sum_t weights[t] KL( p[t,:] || softmax_s scale scores[t,:] ), p = u / sum u.

    scores and u (T, S) (u: attention_mass), keys (T, K) of the student with -1 for none, weights (T). semantics: whose
    reading, "paper", "maxtext", "megatron", "hf-fork", "prime-rl" or "xtuner". A float, in nats.
    """
    return _core.index_kl(*_kl(scores, u, keys, weights, semantics, warmup, scale))


def index_kl_backward(scores, u, keys, weights, semantics="paper", warmup=False, scale=1.0):
    """d_scores (T, S) of index_kl; the teacher u is a constant."""
    return _core.index_kl_backward(*_kl(scores, u, keys, weights, semantics, warmup, scale))


def _kl(scores, u, keys, weights, semantics, warmup, scale):
    require(isinstance(semantics, str), f"semantics is {semantics!r:.80}, expected a trainer's name such as paper")
    return (numbers_of("scores", scores, 2), numbers_of("u", u, 2), integers_of("keys", keys, 2),
            numbers_of("weights", weights, 1), semantics, flag("warmup", warmup), number("scale", scale))
