"""The indexer's loss in torch, for HuggingFace models, whose indexers run without gradients.

  u[t,s]  = sum_n softmax_s(main attention's logits of head n)        the teacher, a constant
  p[t,s]  = u[t,s] / sum_s u[t,s]
  q[t,:]  = softmax_s I[t,s],  I[t,s] = sum_h w[t,h] relu(q[t,h] . k[s])
  KL[t]   = sum_s p[t,s] (log p[t,s] - log q[t,s]),   0 log 0 = 0

DeepSeek-V3.2 (arXiv 2512.02556), eq. (1), (3) and (4); trainers' readings of it: kl_semantics.py. HuggingFace's own
indexers still choose the keys. The scores of this file are held against that choice: the run fails if they would
have chosen other keys.
"""
import contextlib
import sys

import torch

from golden_files import Failure

# Rotary channels of the indexer lie as (2i, 2i+1), or as (i, i + P/2).
INTERLEAVED = {"deepseek_v32": False, "glm_moe_dsa": True}
# Of double: sums of some hundred products, in another order than HuggingFace's.
ROUNDING = 1e-12


def rotated(x, angles, interleaved):
    """The first channels of x (B, S, H, D) turned by `angles`: (cos, sin), (B, S, P) each, of which half is new."""
    cos, sin = (a[..., :a.shape[-1] // 2].unsqueeze(2) for a in angles)
    turned = x[..., :2 * cos.shape[-1]]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned.chunk(2, -1)
    # The order of the turned channels is that of queries and keys alike, and their product does not see it.
    return torch.cat([a * cos - b * sin, b * cos + a * sin, x[..., turned.shape[-1]:]], -1)


def index_scores(indexer, x, c_q, angles, interleaved):
    """I (B, S, S) of hidden states x (B, S, C) and query latent c_q, nothing masked."""
    H, D = indexer.n_heads, indexer.head_dim
    q = rotated(indexer.wq_b(c_q).unflatten(-1, (H, D)), angles, interleaved)
    k = rotated(indexer.k_norm(indexer.wk(x)).unsqueeze(2), angles, interleaved)[:, :, 0]
    w = indexer.weights_proj(x) * (H * D) ** -0.5
    return torch.einsum("bth,bths->bts", w, torch.einsum("bthd,bsd->bths", q, k).relu())


def check_choice(chosen, scores, visible, name):
    """No key that was left out scores higher than one that was chosen. Returns the smallest distance between them."""
    size = scores[visible].abs().max()
    weakest = scores.masked_fill(~chosen, torch.inf).amin(-1)
    strongest = scores.masked_fill(chosen | ~visible, -torch.inf).amax(-1)
    gap = float((weakest - strongest).min())
    if not gap >= -ROUNDING * size:
        raise Failure(f"{name}: HuggingFace chose a key whose score is {-gap:.3g} below one that it left out; "
                      "this version's indexer computes other scores than data/indexer_loss.py")
    return gap


def guarded(x, added, least):
    return (x + added).clamp(min=least)


def kl_of_rows(semantics, scores, logits, chosen, visible, head_scale):
    """(B, S) of the scores (B, S, S) and the main attention's logits (B, N, S, S)."""
    keys = {"chosen": chosen, "visible": visible}
    nothing = torch.finfo(scores.dtype).min  # finite: rows of padding see no key
    a = logits.masked_fill(~keys[semantics.teacher_softmax][:, None], nothing).softmax(-1)
    u = a.sum(1) * keys[semantics.teacher_keys]
    p = u / guarded(u.sum(-1, keepdim=True), semantics.l1_added, semantics.l1_least).clamp(min=torch.finfo(u.dtype).tiny)
    z = scores if semantics.student_scaled else scores / head_scale
    student = keys[semantics.student_keys]
    log_q = z.masked_fill(~student, nothing).log_softmax(-1)
    if semantics.log_q_added or semantics.log_q_least:
        log_q = guarded(log_q.exp(), semantics.log_q_added, semantics.log_q_least).log()
    p = p * student
    return (torch.xlogy(p, guarded(p, semantics.log_p_added, semantics.log_p_least)) - p * log_q).sum(-1)


class IndexerLoss:
    """Within `with`, forward passes of the model keep what the loss needs; `index_topk` replaces the config's."""

    def __init__(self, model, semantics, index_topk=None):
        self.model, self.semantics, self.index_topk = model, semantics, index_topk
        self.indexers = {n: m for n, m in model.named_modules() if n.endswith(".indexer")}
        if self.indexers and model.config.model_type not in INTERLEAVED:
            raise Failure(f"the indexer of {model.config.model_type} is not known; known are {', '.join(INTERLEAVED)}")
        self.rows, self.gap = {}, torch.inf

    def __enter__(self):
        self.undo = contextlib.ExitStack()
        for name, indexer in self.indexers.items():
            self.undo.callback(setattr, indexer, "index_topk", indexer.index_topk)
            indexer.index_topk = self.index_topk or indexer.index_topk
            self.undo.callback(delattr, indexer, "forward")
            indexer.forward = self.watched(name, indexer, indexer.forward)
        if self.indexers:
            module = sys.modules[type(self.model).__module__]
            self.undo.callback(setattr, module, "eager_attention_forward", module.eager_attention_forward)
            module.eager_attention_forward = self.taught(module.eager_attention_forward)
        return self

    def __exit__(self, *error):
        self.undo.close()

    def watched(self, name, indexer, theirs):
        interleaved = INTERLEAVED[self.model.config.model_type]

        def forward(x, c_q, angles, mask, *args, **kwargs):
            ids = theirs(x, c_q, angles, mask, *args, **kwargs)
            if self.semantics.detach != "nothing":
                c_q = c_q.detach()
            if self.semantics.detach == "inputs":
                x = x.detach()
            scores = index_scores(indexer, x, c_q, angles, interleaved)
            visible = mask if mask.dtype == torch.bool else mask == 0
            visible = visible.expand_as(scores)
            chosen = torch.zeros_like(visible).scatter(-1, ids.long(), True) & visible
            self.gap = min(self.gap, check_choice(chosen, scores.detach(), visible, name))
            indexer.seen = (name, scores, chosen, visible)
            return ids

        return forward

    def taught(self, theirs):
        def forward(module, query, key, value, mask, scaling, **kwargs):
            indexer = getattr(module, "indexer", None)
            if indexer is not None:
                name, scores, chosen, visible = indexer.__dict__.pop("seen")
                logits = query.detach() @ key.detach().mT * scaling
                self.rows[name] = kl_of_rows(self.semantics, scores, logits, chosen, visible,
                                             (indexer.n_heads * indexer.head_dim) ** -0.5)
            return theirs(module, query, key, value, mask, scaling, **kwargs)

        return forward

    def losses(self, counted):
        """(the loss, one a layer) of the last forward pass; `counted` (B, S): the rows that count."""
        layers = torch.stack([rows[counted].mean() if self.semantics.tokens == "mean" else rows[counted].sum()
                              for rows in self.rows.values()])
        return layers.mean() if self.semantics.layers == "mean" else layers.sum(), layers
