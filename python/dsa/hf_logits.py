#!/usr/bin/env python3
"""Logits of HuggingFace transformers, for `dsa-verify invariants --command` (docs/invariants.md).

  dsa-verify invariants CHECKPOINT --command \\
      'PYTHONPATH=python python -m dsa.hf_logits CHECKPOINT {in} {out} --chunks {chunks}'

Reads `tokens` and `attention_mask` (B, S) from IN and writes `logits` (B, S, vocab_size) to OUT,
in the dtype of the run. --chunks 22,48 runs tokens 0 to 21, then 22 to 47 through the cache.
"""
import argparse
import os

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="directory with config.json and safetensors")
    parser.add_argument("input", metavar="IN", help="safetensors with tokens and attention_mask")
    parser.add_argument("output", metavar="OUT", help="safetensors to write")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--attention", default="eager", help="attn_implementation")
    parser.add_argument("--experts", default="eager", help="experts_implementation")
    parser.add_argument("--chunks", default="", help="where chunks end, e.g. 22,48 (default: one go)")
    return parser.parse_args()


def logits(model, tokens, mask, ends):
    """(B, S, vocab_size), chunk by chunk through one cache; positions count ones of the mask."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    parts, begin, cache = [], 0, None
    for end in ends:
        out = model(input_ids=tokens[:, begin:end], attention_mask=mask[:, :end], position_ids=positions[:, begin:end],
                    past_key_values=cache, use_cache=True)
        parts.append(out.logits)
        begin, cache = end, out.past_key_values
    return torch.cat(parts, dim=1)


def main():
    args = arguments()
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=DTYPES[args.dtype],
                                                 attn_implementation=args.attention,
                                                 experts_implementation=args.experts)
    model = model.to(args.device).eval()
    given = load_file(args.input, device=args.device)
    tokens, mask = given["tokens"], given["attention_mask"]
    ends = [int(end) for end in args.chunks.split(",")] if args.chunks else [tokens.shape[1]]
    with torch.no_grad():
        result = logits(model, tokens, mask, ends)
    # Rows of padding may be NaN: nobody reads them.
    save_file({"logits": result.cpu().contiguous()}, args.output + ".partial")
    os.replace(args.output + ".partial", args.output)


if __name__ == "__main__":
    main()
