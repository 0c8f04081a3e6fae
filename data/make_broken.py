#!/usr/bin/env python3
"""A broken candidate: HuggingFace's DeepSeek-V3.2 with one published bug put in.

    python make_broken.py samples/v32 broken/v32-rope-interleaved.safetensors

The indexer rotates channels (2i, 2i+1); the checkpoint was trained with (i, i + P/2). DeepSeek's
demonstration code of V3.2-Exp had this bug at first, and others copied it (sgl-project/sglang#13495). The tokens are those of SAMPLE's
logits.safetensors. OUT holds them, the logits of every sequence and a trace of the first one, in fp32.
"""
import argparse
import os

import torch
from safetensors.torch import load_file
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as modeling

from golden_files import write_tensors
from huggingface import Runner

TRACED = r"^(?!.*(o_proj|embed_tokens)$)"


def interleaved(q, k, cos, sin, unsqueeze_dim=1):
    """Takes the place of the indexer's rotation, which turns the two halves."""
    return modeling.apply_rotary_pos_emb_interleave(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", help="a folder with checkpoint/ and logits.safetensors")
    parser.add_argument("out", help="the safetensors file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokens = load_file(os.path.join(args.sample, "logits.safetensors"))["tokens"]
    modeling.apply_rotary_pos_emb = interleaved
    run, trace = Runner(os.path.join(args.sample, "checkpoint"), "fp32"), {}
    logits = run(tokens, trace=trace, names=TRACED)
    first = {k: v[:tokens.shape[1] if ".gate." in k else 1] for k, v in trace.items()}
    write_tensors(args.out, {"tokens": tokens, "logits": logits, **first})


if __name__ == "__main__":
    main()
