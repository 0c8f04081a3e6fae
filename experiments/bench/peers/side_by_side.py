#!/usr/bin/env python3
"""The same checkpoint and lengths through dsa, llama.cpp and HuggingFace, side by side on this machine.

    python side_by_side.py CHECKPOINT MODEL.gguf --lengths 1024,4096,16384 --rounds 2 --json out.json

One run is one process that loads, prefills and decodes. Runs alternate, A B A B, so that a machine that
slows down slows all of them. Prints medians, their spread (lowest to highest) and ours over the best peer.
A run that took longer than --patience seconds is not repeated in later rounds; `rounds` tells how many there were.
Above --huggingface-most tokens HuggingFace only decodes, over a cache that is filled by repetition: it builds
S x S masks for every layer.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def commands(arguments, length):
    """Name -> command line, for one length."""
    decode, threads = str(arguments.decode), str(arguments.threads)
    common = ["--length", str(length), "--decode", decode, "--threads", threads]
    llama = [sys.executable, str(HERE / "llama_cpp_run.py"), arguments.gguf, "time", *common]
    runs = {
        "dsa": [arguments.bench, "model", arguments.checkpoint, "--format", arguments.format, *common],
        "llama.cpp": llama,
        "llama.cpp flash": [*llama, "--flash"],
    }
    transformers = [sys.executable, str(HERE / "huggingface_run.py"), arguments.checkpoint, *common]
    filled = [] if length <= arguments.huggingface_most else ["--filled", "1024"]
    return {**runs, "transformers": [*transformers, *filled]}


def run(command, threads):
    """The JSON line that a runner prints last, and the seconds that it all took."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("OMP_WAIT_POLICY", None)
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1], "seconds": seconds}
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "seconds": seconds}


def processor():
    """The model name that the kernel tells; else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def median(results, key):
    values = [r[key] for r in results if r.get(key)]
    return (statistics.median(values), min(values), max(values)) if values else None


def report(length, results):
    """Prints a table; returns ours over the best peer: {"prefill": x, "decode": y}."""
    print(f"\n{length} tokens")
    print(f"  {'':16} {'prefill, tokens/s':>28} {'decode, ms a token':>28} {'peak, MiB':>10} {'rounds':>7}")
    best = {}
    for name, runs in results.items():
        prefill, decode, peak = (median(runs, k) for k in ("prefill_tokens_per_s", "decode_s_per_token", "peak_mib"))
        if peak is None:
            print(f"  {name:16} {runs[-1]['error']}")
            continue
        fast = f"{prefill[0]:.1f} ({prefill[1]:.1f}-{prefill[2]:.1f})" if prefill else "-"
        slow = f"{decode[0] * 1e3:.2f} ({decode[1] * 1e3:.2f}-{decode[2] * 1e3:.2f})" if decode else "-"
        print(f"  {name:16} {fast:>28} {slow:>28} {peak[0]:10.0f} {len(runs):7}")
        if name != "dsa":
            if prefill:
                best["prefill"] = max(best.get("prefill", 0), prefill[0])
            if decode:
                best["decode"] = min(best.get("decode", float("inf")), decode[0])
    ratios = {}
    ours = results["dsa"]
    if "prefill" in best and median(ours, "prefill_tokens_per_s"):
        ratios["prefill"] = median(ours, "prefill_tokens_per_s")[0] / best["prefill"]
    if "decode" in best and median(ours, "decode_s_per_token"):
        ratios["decode"] = best["decode"] / median(ours, "decode_s_per_token")[0]
    if ratios:
        print("  dsa against the best peer: " + ", ".join(f"{k} {v:.2f}x" for k, v in ratios.items()))
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("gguf")
    parser.add_argument("--lengths", default="1024,4096,16384")
    parser.add_argument("--decode", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--format", default="bf16")
    parser.add_argument("--bench", default="build/bin/dsa-bench")
    parser.add_argument("--huggingface-most", type=int, default=4096)
    parser.add_argument("--patience", type=float, default=600)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    everything = {"machine": processor(), "threads": arguments.threads, "lengths": {}}
    for length in map(int, arguments.lengths.split(",")):
        runs = commands(arguments, length)
        results = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, command in runs.items():
                if not results[name] or results[name][0]["seconds"] <= arguments.patience:
                    results[name].append(run(command, arguments.threads))
        everything["lengths"][length] = {"runs": results, "ratios": report(length, results)}
    if arguments.json:
        partial = arguments.json.with_suffix(".partial")
        partial.write_text(json.dumps(everything, indent=1) + "\n")
        os.replace(partial, arguments.json)


if __name__ == "__main__":
    main()
