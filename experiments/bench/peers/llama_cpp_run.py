#!/usr/bin/env python3
"""llama.cpp (through llama-cpp-python 0.3.36) on tokens: logits of a golden's tokens, or timings.

    python llama_cpp_run.py MODEL.gguf logits --tokens GOLDEN --out OUT.safetensors [--exact]
    python llama_cpp_run.py MODEL.gguf time --length 4096 --decode 16 --vocab 8192 [--flash]

--exact: F32 caches, flash attention off; with F32 weights the whole run is fp32. Prints one JSON line.
"""
import argparse
import ctypes
import json
import resource
import time

import llama_cpp as lc
import numpy as np


class Session:
    def __init__(self, path, context, threads, exact, flash, batch):
        lc.llama_backend_init()
        parameters = lc.llama_model_default_params()
        self.model = lc.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        p = lc.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = context, max(batch, 1), max(batch, 1)
        p.n_threads = p.n_threads_batch = threads
        p.flash_attn_type = 1 if flash else 0
        p.type_k = p.type_v = 0 if exact else 1  # GGML_TYPE_F32, GGML_TYPE_F16
        p.no_perf = True
        self.context = lc.llama_init_from_model(self.model, p)
        if not self.context:
            raise SystemExit("llama.cpp refuses this context")
        self.batch = batch
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.model))

    def clear(self):
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)

    def decode(self, tokens, first, all_logits):
        """Runs tokens at positions first..., in batches; rows of logits if asked, else the last."""
        rows = []
        for begin in range(0, len(tokens), self.batch):
            part = tokens[begin:begin + self.batch]
            batch = lc.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i] = int(token), first + begin + i
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                batch.logits[i] = all_logits or begin + i == len(tokens) - 1
            status = lc.llama_decode(self.context, batch)
            if status != 0:
                raise SystemExit(f"llama_decode returned {status}")
            if all_logits:
                n = len(part) * self.vocab
                values = lc.llama_get_logits(self.context)
                rows.append(np.ctypeslib.as_array(ctypes.cast(values, ctypes.POINTER(ctypes.c_float)), (n,))
                            .reshape(len(part), self.vocab).copy())
            lc.llama_batch_free(batch)
        return np.concatenate(rows) if rows else None


def logits(arguments):
    from safetensors.numpy import load_file, save_file
    tokens = load_file(arguments.tokens)["tokens"].astype(np.int64)
    session = Session(arguments.model, int(tokens.shape[1]) + 8, arguments.threads, arguments.exact, arguments.flash,
                      min(arguments.batch, int(tokens.shape[1])))
    out = []
    for row in tokens:
        session.clear()
        out.append(session.decode(row, 0, True))
    save_file({"tokens": tokens, "logits": np.stack(out)}, arguments.out)
    return {"rows": int(tokens.size)}


def timings(arguments):
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, arguments.vocab, arguments.length + arguments.decode)
    session = Session(arguments.model, len(tokens) + 8, arguments.threads, arguments.exact, arguments.flash, arguments.batch)
    begin = time.perf_counter()
    session.decode(tokens[:arguments.length], 0, False)
    prefill = time.perf_counter() - begin
    begin = time.perf_counter()
    for i in range(arguments.length, len(tokens)):
        session.decode(tokens[i:i + 1], i, False)
    decode = time.perf_counter() - begin
    return {"length": arguments.length, "prefill_tokens_per_s": arguments.length / prefill,
            "decode_s_per_token": decode / arguments.decode if arguments.decode else None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("what", choices=("logits", "time"))
    parser.add_argument("--tokens")
    parser.add_argument("--out")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--decode", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--flash", action="store_true")
    arguments = parser.parse_args()
    result = logits(arguments) if arguments.what == "logits" else timings(arguments)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peer": "llama.cpp", "version": lc.__version__, "flash": arguments.flash, **result}))


if __name__ == "__main__":
    main()
