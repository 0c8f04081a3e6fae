#!/usr/bin/env python3
"""Plain torch on the problems of `dsa-bench cuda`, on the same device, timed the same way.

    dsa-bench cuda --list --json PROBLEMS
    torch_on_device.py PROBLEMS --json ROWS [--device cpu]

What somebody would write without kernels of their own: the chosen keys gathered and given to
scaled_dot_product_attention, matmul and topk, F.linear (cuBLAS). In chunks of queries, so that what is
gathered, or the scores of every head, fit into memory. Median of the runs, between events, with the L2
cache flushed before each. Exit status 3: there is no torch here, or it has no such device.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ModuleNotFoundError as e:
    print(f"the package {e.name} is not installed")
    sys.exit(3)

CHUNK_BYTES = 2 << 30  # of what a chunk of queries makes


def chunks(T, bytes_a_query):
    step = max(1, min(T, CHUNK_BYTES // bytes_a_query))
    return [slice(t, min(t + step, T)) for t in range(0, T, step)]


def numbers(*shape, dtype=torch.bfloat16):
    return torch.rand(*shape, dtype=dtype) * 2 - 1


def chosen_keys(T, K, S):
    """(T, K): one key of every K-th part of S, as dsa-bench chooses."""
    first = torch.arange(K) * S // K
    room = (torch.arange(K) + 1) * S // K - first
    return first + (torch.rand(T, K) * room).long()


def mla_sparse(T, S, N, R, P, K, **_):
    q, kv, chosen = numbers(T, N, R + P), numbers(S, R + P), chosen_keys(T, K, S)

    def work():
        for part in chunks(T, 2 * K * (R + P) + 4 * N * K):
            keys = kv[chosen[part]][:, None]  # (t, 1, K, R+P): one head of keys for all heads of queries
            F.scaled_dot_product_attention(q[part][:, None], keys, keys[..., :R], scale=0.1352337788608801)
    return work


def scores_of(q, k, w):
    return torch.einsum("ths,th->ts", torch.matmul(q, k.T).relu_(), w)


def indexer_scores(T, S, H, D, **_):
    q, k, w = numbers(T, H, D), numbers(S, D), numbers(T, H)

    def work():
        for part in chunks(T, 2 * H * S):
            scores_of(q[part], k, w[part])
    return work


def indexer_topk(T, S, H, D, K, **_):
    q, k, w = numbers(T, H, D), numbers(S, D), numbers(T, H)

    def work():
        for part in chunks(T, 2 * H * S):
            scores_of(q[part], k, w[part]).topk(K, sorted=False)
    return work


def topk_select(T, S, K, **_):
    scores = numbers(T, S, dtype=torch.float32)
    return lambda: scores.topk(K, sorted=False)


def linear(T, C, F, **_):
    x, w = numbers(T, C), numbers(F, C)
    return lambda: torch.nn.functional.linear(x, w)


OPS = {f.__name__: f for f in (mla_sparse, indexer_scores, indexer_topk, topk_select, linear)}


def timed(work, flush):
    """Milliseconds of every run: one to warm up, then for a second, at least 3 and at most 30."""
    took = []
    for i in range(31):
        if flush is None:
            begin = time.perf_counter()
            work()
            ms = 1e3 * (time.perf_counter() - begin)
        else:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            begin.record()
            work()
            end.record()
            end.synchronize()
            ms = begin.elapsed_time(end)
        took += [ms] if i else []
        if len(took) >= 3 and sum(took) > 1000:
            break
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    on_device = arguments.device != "cpu"
    if on_device and not torch.cuda.is_available():
        print("torch has no CUDA device here")
        return 3
    torch.set_default_device(arguments.device)
    torch.set_grad_enabled(False)
    flush = torch.empty(512 << 20, dtype=torch.uint8) if on_device else None
    rows, done, failed = [], set(), 0
    for p in json.loads(arguments.problems.read_text())["problems"]:
        key = p["op"], p["dtype"], p["shape"]
        if p["dtype"] == "fp8" or p["sizes"].get("B", 1) > 1 or key in done:
            continue  # torch has no e4m3 rows, and no paged caches
        done.add(key)
        row = dict(zip(("op", "dtype", "shape"), key))
        try:
            took = timed(OPS[p["op"]](**p["sizes"]), flush)
            rows.append({**row, "ms": statistics.median(took), "least_ms": min(took), "runs": len(took)})
        except RuntimeError as e:  # no memory
            rows.append({**row, "ms": None, "error": str(e).splitlines()[0]})
            failed += 1
    arguments.json.write_text(json.dumps({"torch": torch.__version__, "device": arguments.device, "rows": rows}))
    print(f"{len(rows)} problems, {failed} without a time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
