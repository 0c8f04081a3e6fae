#!/usr/bin/env python3
"""A part of a safetensors file: every tensor but those whose name matches DROP, byte for byte.

    python cut_tensors.py IN OUT --drop REGEX

It made gradients/ of the whole files that torch's autograd wrote; README.md has the expressions.
"""
import argparse
import json
import os
import re
import struct


def cut(source, target, drop):
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
        kept[name] = {"dtype": tensor["dtype"], "shape": tensor["shape"],
                      "data_offsets": [offset, offset + end - begin]}
        parts.append(data[8 + size + begin:8 + size + end])
        offset += end - begin
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
    arguments = parser.parse_args()
    cut(arguments.source, arguments.target, arguments.drop)
