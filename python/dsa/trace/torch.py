#!/usr/bin/env python3
"""A trace of a torch model for `dsa-verify localise`: every module's output under its name.

  PYTHONPATH=python python -m dsa.trace.torch CHECKPOINT TOKENS OUT [--dtype bf16] [--names REGEX]

runs HuggingFace transformers on the first sequence of TOKENS, a safetensors file with `tokens` (and
`attention_mask`) such as a golden, or a JSON list of ids. In code of your own, HuggingFace or not:

  from dsa.trace.torch import Dump
  with Dump(model) as dump:
      model(tokens)                           # a batch of one sequence
  dump.save("mine.safetensors", tokens)       # dsa-verify localise CHECKPOINT mine.safetensors

With `Dump(model, gradients=True)`, and a backward pass inside `with`, the gradient of the loss in each
of these tensors is kept beside it, as `d.NAME` (here: --backward).

HuggingFace's names are the reference's; for others give --names (docs/localise.md). Of a module that
returns several tensors the first is kept, of a router all three. What is split over ranks, packed
batches and quantised outputs are yours to undo: docs/dumping.md.
"""
import argparse
import json
import os
import re

import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Not of the sequence's length, or of as many rows as tokens chose an expert.
LEFT_OUT = re.compile(r"rotary_emb|act_fn|\.experts\.\d+(\.|$)")
# What HuggingFace's router returns, and inputs of modules that are outputs of no module.
PARTS = {"mlp.gate": ("logits", "weights", "experts")}
INPUTS = {"self_attn.o_proj": "self_attn.heads", "post_attention_layernorm": "attention_residual"}


def tensors_of(out):
    """The tensors among what a module returned, in order."""
    if isinstance(out, torch.Tensor):
        return [out]
    if isinstance(out, (tuple, list)):
        return [x for x in out if isinstance(x, torch.Tensor)]
    return [out.logits] if isinstance(getattr(out, "logits", None), torch.Tensor) else []


class TopK(TorchDispatchMode):
    """Inside an indexer, keeps what top-k saw: its scores."""

    def __init__(self, dump):
        super().__init__()
        self.dump, self.indexer = dump, None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.indexer and func is torch.ops.aten.topk.default:
            self.dump.keep(self.indexer + ".scores", args[0])
        return func(*args, **(kwargs or {}))


class Dump:
    """Within `with`, keeps the outputs of the model's modules whose names match, and their gradients if asked."""

    def __init__(self, model, names="", gradients=False):
        self.model, self.names, self.gradients = model, re.compile(names), gradients
        self.trace, self.hooks, self.topk = {}, [], TopK(self)

    def keep(self, name, x):
        if not self.names.search(name):
            return
        self.trace[name] = x.detach().to("cpu", copy=True).contiguous()
        if self.gradients and x.requires_grad:  # called with the sum of all that reaches x
            x.register_hook(lambda g: self.trace.update({f"d.{name}": g.to("cpu", copy=True).contiguous()}))

    def keep_output(self, name, out):
        """Returns nothing: what a hook returns takes the place of the module's output."""
        tensors, names = tensors_of(out), [name]
        for suffix, parts in PARTS.items():
            if name.endswith(suffix) and len(tensors) == len(parts):
                names = [f"{name}.{part}" for part in parts]
        for x_name, x in zip(names, tensors):
            self.keep(x_name, x)

    def __enter__(self):
        for name, module in self.model.named_modules():
            if not name or name == "model" or LEFT_OUT.search(name) or isinstance(module, torch.nn.ModuleList):
                continue
            for suffix, input_name in INPUTS.items():
                if name.endswith(suffix):
                    path = name[:-len(suffix)] + input_name
                    self.hooks.append(module.register_forward_pre_hook(lambda _m, args, p=path: self.keep(p, args[0])))
            if name.endswith(".indexer"):
                self.hooks.append(module.register_forward_pre_hook(lambda *_, n=name: setattr(self.topk, "indexer", n)))
                self.hooks.append(module.register_forward_hook(lambda *_: setattr(self.topk, "indexer", None)))
            self.hooks.append(module.register_forward_hook(lambda _m, _i, out, n=name: self.keep_output(n, out)))
        self.topk.__enter__()
        return self

    def __exit__(self, *error):
        self.topk.__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def save(self, path, tokens, mask=None):
        """Writes the trace with the tokens, (S) or (1, S), that the model was given."""
        tokens = torch.as_tensor(tokens).reshape(1, -1) if torch.as_tensor(tokens).dim() < 2 else torch.as_tensor(tokens)
        if tokens.shape[0] != 1:
            raise SystemExit(f"a trace is of one sequence, and tokens hold {tokens.shape[0]}; run one at a time")
        given = {"tokens": tokens.to("cpu", torch.int64)}
        if mask is not None:
            given["attention_mask"] = torch.as_tensor(mask).reshape(1, -1).to("cpu", torch.int64)
        trace = {k: v.to(torch.uint8) if v.dtype == torch.bool else v for k, v in self.trace.items()}
        save_file({**given, **trace}, str(path) + ".partial")
        os.replace(str(path) + ".partial", path)


def first_sequence(path):
    """Tokens (1, S) and mask (1, S) or None."""
    if path.endswith(".json"):
        with open(path) as f:
            ids = json.load(f)
        return torch.tensor(ids[0] if isinstance(ids[0], list) else ids)[None], None
    given = load_file(path)
    tokens, mask = given["tokens"], given.get("attention_mask")
    tokens = tokens if tokens.dim() == 2 else tokens[None]
    return tokens[:1], None if mask is None else mask.reshape(tokens.shape)[:1]


def next_token_loss(logits, tokens, mask):
    """Mean cross entropy over real tokens that follow real ones, in float32 at least."""
    counted = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(tokens.device).bool()
    counted = counted[:, 1:] & counted[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.nn.functional.cross_entropy(logits[:, :-1][counted], tokens[:, 1:][counted])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="directory with config.json and safetensors")
    parser.add_argument("tokens", metavar="TOKENS", help="safetensors with tokens, or a JSON list of ids")
    parser.add_argument("output", metavar="OUT", help="safetensors to write")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--names", default="", help="only names that this regular expression finds")
    parser.add_argument("--backward", action="store_true", help="also gradients of the language-model loss, d.NAME")
    parser.add_argument("--attention", default="eager", help="attn_implementation")
    parser.add_argument("--experts", default="eager", help="experts_implementation")
    args = parser.parse_args()

    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=DTYPES[args.dtype],
                                                 attn_implementation=args.attention,
                                                 experts_implementation=args.experts).to(args.device).eval()
    tokens, mask = first_sequence(args.tokens)
    inputs = dict(input_ids=tokens.to(args.device), use_cache=False)
    if mask is not None:  # positions count the real tokens
        inputs.update(attention_mask=mask.to(args.device),
                      position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(args.device))
    with torch.set_grad_enabled(args.backward), Dump(model, args.names, args.backward) as dump:
        logits = model(**inputs).logits
        if args.backward:
            next_token_loss(logits, inputs["input_ids"], mask).backward()
    dump.save(args.output, tokens, mask)


if __name__ == "__main__":
    main()
