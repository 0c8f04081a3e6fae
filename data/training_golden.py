"""Losses, gradients and runs of training of a HuggingFace model, by torch's autograd and AdamW, in double.

The forward pass and its mask are HuggingFace's; the indexer's loss is indexer_loss.py's. README.md has the files.
"""
import contextlib
import re

import torch
from torch.nn.functional import cross_entropy

from golden_files import Failure
from huggingface import Watch, double_everywhere, parts_of, traced_modules
from indexer_loss import IndexerLoss
from kl_semantics import PRESETS

# The forward pass and the keys of the indexer's loss: chosen ones; all, every one chosen; all, under a sparse pass.
STAGES = ("sparse", "dense", "warmup")


@contextlib.contextmanager
def in_double(run):
    """Every operation inside is inspected, those of the backward pass too."""
    watch = Watch(True)
    with torch.enable_grad(), double_everywhere(run.model), watch:
        yield
    run.operations += watch.operations


def inputs_of(tokens, mask, padding_counted):
    """(what the model is given, which rows the indexer's loss counts)."""
    inputs = dict(input_ids=tokens, use_cache=False)
    if mask is None:
        return inputs, torch.ones_like(tokens, dtype=torch.bool)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # they count the real tokens
    if not padding_counted:
        return {**inputs, "attention_mask": mask, "position_ids": positions}, mask.bool()
    places = torch.arange(tokens.shape[1])  # padding stands where it stands
    visible = (mask[:, :, None] == mask[:, None, :]) & (places[:, None] >= places)
    unseen = torch.finfo(torch.float64).min
    additive = torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, unseen)[:, None]
    return ({**inputs, "attention_mask": additive, "position_ids": torch.where(mask.bool(), positions, places)},
            torch.ones_like(mask, dtype=torch.bool))


def lm_loss(logits, tokens, mask):
    """Mean cross entropy of the next token, over real tokens that follow real ones."""
    counted = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    counted = counted[:, 1:] & counted[:, :-1]
    return cross_entropy(logits[:, :-1][counted], tokens[:, 1:][counted])


def losses(run, tokens, mask, semantics, dense):
    """Losses with graphs: {"lm", "kl", "kl.layers"} as far as there are any, and the smallest distance of a choice."""
    inputs, counted = inputs_of(tokens, mask, semantics.padding_counted)
    with IndexerLoss(run.model, semantics, tokens.shape[1] if dense else None) as indexers:
        logits = run.model(**inputs).logits
        found = {}
        if not (semantics.padding_counted and mask is not None):  # no trainer's language-model loss counts padding
            found["lm"] = lm_loss(logits, tokens, mask)
        if indexers.indexers:
            found["kl"], found["kl.layers"] = indexers.losses(counted)
    return found, indexers.gap


def gradients(run, tokens, mask, stage, semantics=PRESETS["paper"]):
    """(the tensors of a file, the smallest distance of a choice). Another reading than the paper's: its KL alone."""
    out = {"tokens": tokens, **({} if mask is None else {"valid": mask})}
    parameters = dict(run.model.named_parameters())
    with in_double(run):
        found, gap = losses(run, tokens, mask, semantics.in_warmup() if stage == "warmup" else semantics,
                            stage == "dense")
        if semantics.name != "paper":
            found.pop("lm", None)
        for name in (n for n in ("lm", "kl") if n in found):
            given = torch.autograd.grad(found[name], list(parameters.values()), retain_graph=True, allow_unused=True)
            out.update({f"{name}.{p}": g for p, g in zip(parameters, given) if g is not None})
    if not found:
        raise Failure(f"semantics {semantics.name}: the model has no indexer, so there is no loss")
    out.update({f"loss.{n}": x.detach().reshape(-1) for n, x in found.items()})
    return out, gap


def backward_trace(run, tokens, names=""):
    """"d.NAME": the gradient of the language-model loss of one sequence in the output that a trace calls NAME."""
    out, hooks = {"tokens": tokens}, []

    def watch(name, result):
        for part, x in parts_of(name, result).items():
            if x.requires_grad and re.search(names, part):
                x.register_hook(lambda g, n=part: out.update({f"d.{n}": g.clone()}))

    for name, module in traced_modules(run.model):
        hooks.append(module.register_forward_hook(lambda _m, _i, result, n=name: watch(n, result)))
    try:
        with in_double(run):
            loss = lm_loss(run.model(input_ids=tokens, use_cache=False).logits, tokens, None)
            torch.autograd.grad(loss, run.model.get_input_embeddings().weight)
    finally:
        for hook in hooks:
            hook.remove()
    return {**out, "loss.lm": loss.detach().reshape(1)}


class Optimiser:
    """torch's Adam with weight decay, its clip and its rates, as a recipe has them."""

    def __init__(self, recipe, parameters):
        a = recipe.adamw
        self.recipe, self.parameters = recipe, parameters
        decayed = {n for n, p in parameters.items() if p.dim() > 1 or a["decayed"] == "all"}
        groups = [dict(params=[p for n, p in parameters.items() if (n in decayed) == yes],
                       weight_decay=a["weight_decay"] if yes else 0.0) for yes in (True, False)]
        kind = torch.optim.AdamW if a["decoupled"] else torch.optim.Adam
        self.adam = kind([g for g in groups if g["params"]], lr=1.0, betas=(a["beta1"], a["beta2"]), eps=a["eps"],
                         foreach=False)

    def norm(self):
        return torch.stack([p.grad.norm() for p in self.parameters.values()]).norm()

    def step(self, norm, rate):
        clip = self.recipe.clip
        if clip["max_norm"]:
            factor = (clip["max_norm"] / (norm + clip["eps"])).clamp(max=1)
            for p in self.parameters.values():
                p.grad.mul_(factor)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()


def one_step(run, recipe, tokens, optimiser):
    """Gradients of one batch into .grad; returns the losses without their coefficients, and the smallest distance."""
    sums, gap = {}, torch.inf
    for p in optimiser.parameters.values():
        p.grad = torch.zeros_like(p)  # a parameter that no loss reaches is decayed all the same
    for part in tokens.chunk(recipe.accumulation):
        found, part_gap = losses(run, part, None, recipe.semantics, recipe.dense)
        total = sum(recipe.coefficients[n] * found[n] for n in ("lm", "kl") if recipe.coefficients[n])
        (total / recipe.accumulation).backward()
        for name in (n for n in ("lm", "kl") if n in found):
            sums[name] = sums.get(name, 0) + found[name].detach() / recipe.accumulation
        gap = min(gap, part_gap)
    return sums, gap


def check_recipe(run, recipe, batches):
    has_indexer = any(n.endswith(".indexer") for n, _ in run.model.named_modules())
    if recipe.coefficients["kl"] and not has_indexer:
        raise Failure("the recipe trains on the indexer's loss, and the model has no indexer; take the stage pretrain")
    if not recipe.coefficients["lm"] and not recipe.coefficients["kl"]:
        raise Failure("every coefficient of the recipe is 0: there is nothing to train on")
    if batches.shape[1] % recipe.accumulation:
        raise Failure(f"{batches.shape[1]} sequences a step cannot be cut into {recipe.accumulation} equal parts")
    trained = {n: p for n, p in run.model.named_parameters() if recipe.trains(n)}
    if not trained:
        raise Failure("the recipe trains no parameter of the model")
    return trained


def trajectory(run, recipe, batches):
    """The tensors of a file: steps of the recipe on batches (N, B, S). It changes the model."""
    trained = check_recipe(run, recipe, batches)
    for name, p in run.model.named_parameters():
        p.requires_grad_(name in trained)
    steps = {}
    with in_double(run):
        optimiser = Optimiser(recipe, trained)
        for step, tokens in enumerate(batches):
            found, gap = one_step(run, recipe, tokens, optimiser)
            norm, rate = optimiser.norm(), recipe.rate(step)
            facts = {**{f"loss.{n}": float(x) for n, x in found.items()}, "grad_norm": float(norm), "lr": rate}
            if gap < torch.inf:  # some row had a choice
                facts["index_gap"] = gap
            for name, value in facts.items():
                steps.setdefault(name, []).append(value)
            optimiser.step(norm, rate)
    out = {"tokens": batches, **{n: torch.tensor(v, dtype=torch.float64) for n, v in steps.items()}}
    return {**out, **{f"final.{n}": p.detach() for n, p in trained.items()}}
