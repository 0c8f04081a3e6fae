#!/usr/bin/env python3
"""What llama-eval-callback prints, as a trace for `dsa-verify localise --names llama.cpp`.

  llama-eval-callback -m MODEL.gguf -p PROMPT --no-warmup -ub 4096 > log.txt 2>&1
  PYTHONPATH=python python -m dsa.trace.llama_cpp log.txt TOKENS OUT

TOKENS is a JSON list of the ids that the prompt became, or a safetensors file with `tokens`. The
program prints three values at each end of an axis, with four decimals: too few for any judgement.
Make it print all of them before you build it, in common/debug.cpp (docs/dumping.md). What is printed
in part is listed and left out.

A tensor is named NAME.OP, since llama.cpp gives one name to several in turn: "qr-0.MUL_MAT", then
"qr-0.MUL"; a third of the same name and op is "...#2" beside the first. Needs nothing but Python.
"""
import argparse
import array
import json
import math
import os
import re
import struct
import sys

HEAD = re.compile(r"(?:common_debug_cb_eval|ggml_debug):\s+(?P<name>.+?) = \((?P<type>\w+)\)\s+(?P<op>\w+)\(.*\)? = "
                  r"\{(?P<ne>\d+(?:, \d+)*)\}\s*$")
NUMBER = re.compile(r"[-+]?(?:nan|inf|\d+\.?\d*(?:e[-+]?\d+)?)", re.IGNORECASE)


class Failure(Exception):
    """One sentence for the user."""


def read_log(lines):
    """({name: (is_integer, shape, values)}, names printed in part), in order."""
    tensors, partial, seen, current = {}, set(), {}, None
    for line in lines:
        head, text = HEAD.search(line), line.strip()
        if head:
            key = f"{head['name'].strip()}.{head['op']}"
            seen[key] = seen.get(key, 0) + 1
            current = key if seen[key] == 1 else f"{key}#{seen[key]}"
            shape = [int(n) for n in head["ne"].split(", ")][::-1]  # ne has the fastest axis first
            tensors[current] = (head["type"].startswith("i"), shape, [])
        elif current and "..." in text:
            partial.add(current)
        elif current and text.startswith("["):
            tensors[current][2].extend(float(x) for x in NUMBER.findall(text))
    partial |= {name for name, (_, shape, values) in tensors.items() if math.prod(shape) != len(values)}
    return {name: t for name, t in tensors.items() if name not in partial}, sorted(partial)


def read_tokens(path):
    if path.endswith(".json"):
        with open(path) as f:
            ids = json.load(f)
        return ids[0] if isinstance(ids[0], list) else ids
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        entry = header.get("tokens")
        if entry is None or entry["dtype"] not in ("I64", "I32"):
            raise Failure(f"{path} has no tensor tokens of I64 or I32")
        begin, end = entry["data_offsets"]
        f.seek(begin, os.SEEK_CUR)
        ids = array.array("q" if entry["dtype"] == "I64" else "i", f.read(end - begin))
    return list(ids)[:entry["shape"][-1]]


def save(path, tensors):
    """tensors: {name: (dtype, shape, array)}; the format is core/safetensors.hpp's."""
    header, offset = {}, 0
    for name, (dtype, shape, values) in tensors.items():
        size = len(values) * values.itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".partial", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, values in tensors.values():
            values.tofile(f)
    os.replace(path + ".partial", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", metavar="LOG", help="what llama-eval-callback printed")
    parser.add_argument("tokens", metavar="TOKENS", help="a JSON list of ids, or safetensors with tokens")
    parser.add_argument("output", metavar="OUT", help="safetensors to write")
    args = parser.parse_args()
    with open(args.log, errors="replace") as f:
        tensors, partial = read_log(f)
    if partial:
        print(f"dsa.trace.llama_cpp: {len(partial)} tensors are printed in part and left out: {', '.join(partial[:3])}"
              f"{', ...' if len(partial) > 3 else ''}", file=sys.stderr)
    if not tensors:
        raise Failure(f"{args.log} holds no tensor that is printed in full; see docs/dumping.md")
    tokens = read_tokens(args.tokens)
    out = {"tokens": ("I64", [1, len(tokens)], array.array("q", tokens))}
    for name, (is_integer, shape, values) in tensors.items():
        while len(shape) > 2 and shape[0] == 1:
            shape = shape[1:]
        out[name] = (("I32", shape, array.array("i", [int(x) for x in values])) if is_integer else
                     ("F32", shape, array.array("f", values)))
    save(args.output, out)


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError, ValueError) as error:
        sys.exit(f"dsa.trace.llama_cpp: {error}")
