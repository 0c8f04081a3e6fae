#!/usr/bin/env python3
"""HuggingFace transformers on the CPU: timings of prefill and decoding of a checkpoint.

    python huggingface_run.py CHECKPOINT --length 4096 --decode 2 [--dtype bfloat16]
    python huggingface_run.py CHECKPOINT --length 16384 --decode 2 --filled 1024

--filled N: decoding only, for lengths whose S x S masks do not fit into memory: the cache of a prefill of N
tokens is repeated up to the length, which costs a token the same as a cache of its own. Prints one JSON line.
"""
import argparse
import json
import resource
import time

import torch
import transformers


def repeat(cache, times):
    """Every tensor of a cache, that many times along the tokens."""
    for layer in cache.layers:
        for name in ("keys", "values", "indexer_keys"):
            if isinstance(getattr(layer, name, None), torch.Tensor):
                kept = getattr(layer, name)
                setattr(layer, name, torch.cat([kept] * times, dim=-2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--decode", type=int, default=2)
    parser.add_argument("--filled", type=int)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    fed = arguments.filled or arguments.length
    if arguments.length % fed:
        parser.error(f"--length {arguments.length} is no multiple of --filled {fed}")
    torch.set_num_threads(arguments.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.checkpoint, dtype=getattr(torch, arguments.dtype), attn_implementation=arguments.attention)
    model.eval()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, model.config.vocab_size, (1, arguments.length + arguments.decode), generator=generator)
    with torch.no_grad():
        begin = time.perf_counter()
        out = model(tokens[:, :fed], use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - begin
        repeat(out.past_key_values, arguments.length // fed)
        begin = time.perf_counter()
        for i in range(arguments.length, tokens.shape[1]):
            out = model(tokens[:, i:i + 1], past_key_values=out.past_key_values, use_cache=True)
        decode = time.perf_counter() - begin
    print(json.dumps({
        "peer": "transformers", "version": transformers.__version__, "torch": torch.__version__, "length": arguments.length,
        "prefill_tokens_per_s": None if arguments.filled else arguments.length / prefill,
        "decode_s_per_token": decode / arguments.decode if arguments.decode else None,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
