#!/usr/bin/env python3
"""A part of a safetensors file: every tensor but those whose name matches DROP, byte for byte.

    python cut_tensors.py IN OUT --drop REGEX [--narrow REGEX] [--recipe FILE.json]

It made gradients/ of the whole files that torch's autograd wrote; README.md has the expressions. --narrow stores the
tensors whose name matches as F32, rounded to nearest. --recipe puts the file's JSON into the header, as "recipe".
"""
import argparse
import array
import json
import os
import re
import struct


def narrowed(data):
    return array.array("f", array.array("d", data)).tobytes()


def cut(source, target, drop, narrow, recipe):
    with open(source, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    kept, parts, offset = {}, [], 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        if re.search(drop, name):
            continue
        begin, end = tensor["data_offsets"]
        part, dtype = data[8 + size + begin:8 + size + end], tensor["dtype"]
        if dtype == "F64" and narrow and re.search(narrow, name):
            part, dtype = narrowed(part), "F32"
        kept[name] = {"dtype": dtype, "shape": tensor["shape"], "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    if recipe:
        with open(recipe) as file:
            kept["__metadata__"] = {"recipe": json.dumps(json.load(file))}
    text = json.dumps(kept, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(target + ".partial", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    os.replace(target + ".partial", target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT")
    parser.add_argument("--drop", required=True, metavar="REGEX", help="names that are left out")
    parser.add_argument("--narrow", metavar="REGEX", help="names that are stored as F32")
    parser.add_argument("--recipe", metavar="FILE", help="how the run was trained, as core/recipe.hpp has it")
    arguments = parser.parse_args()
    cut(arguments.source, arguments.target, arguments.drop, arguments.narrow, arguments.recipe)
