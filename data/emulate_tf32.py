#!/usr/bin/env python3
"""Logits of HuggingFace transformers in float32 as a GPU with TF32 matrix products gives them.

    python3 data/emulate_tf32.py CHECKPOINT GOLDEN OUT [--rounding nearest|truncated]

CHECKPOINT is a directory that transformers loads, GOLDEN a file with `tokens` (B, S). Every matrix product
(linear, matmul, bmm, einsum) sees its inputs with 10 of float32's 23 bits of fraction; sums stay float32.
Writes `tokens` and `logits` (F32). Needs torch, transformers and safetensors.
"""
import argparse
import os

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

KEPT_BITS = 10
DROPPED = 23 - KEPT_BITS


def narrowed(x, truncated):
    if not isinstance(x, torch.Tensor) or x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    if not truncated:  # to nearest, ties to even
        bits = bits + (1 << DROPPED - 1) - 1 + (bits >> DROPPED & 1)
    return (bits >> DROPPED << DROPPED).view(torch.float32)


class Tf32(TorchFunctionMode):
    """Narrows the inputs of matrix products; everything else stays as it is."""

    PRODUCTS = {torch.nn.functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm,
                torch.Tensor.bmm, torch.mm, torch.Tensor.mm, torch.einsum, torch.baddbmm, torch.Tensor.baddbmm}

    def __init__(self, truncated):
        super().__init__()
        self.truncated, self.products = truncated, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in self.PRODUCTS:
            self.products += 1
            bias = args[2:] if function is torch.nn.functional.linear else ()
            factors = args[:2] if bias else args
            args = (*(narrowed(x, self.truncated) for x in factors), *bias)
        return function(*args, **kwargs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("golden")
    parser.add_argument("out")
    parser.add_argument("--rounding", choices=["nearest", "truncated"], default="nearest")
    a = parser.parse_args()
    model = transformers.AutoModelForCausalLM.from_pretrained(a.checkpoint, dtype=torch.float32,
                                                              attn_implementation="eager",
                                                              experts_implementation="eager")
    tokens = load_file(a.golden)["tokens"]
    mode = Tf32(a.rounding == "truncated")
    with torch.no_grad(), mode:
        logits = model(tokens, use_cache=False).logits
    if mode.products == 0:
        raise SystemExit("no matrix product was seen; this version of torch calls them by other names")
    save_file({"tokens": tokens, "logits": logits.contiguous()}, a.out + ".partial")
    os.replace(a.out + ".partial", a.out)


if __name__ == "__main__":
    main()
