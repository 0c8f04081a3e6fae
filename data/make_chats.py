#!/usr/bin/env python3
"""Conversations as DeepSeek's own code writes them: OUT, a JSON list of {"format", "think",
"messages", "prompt"}.

  make_chats.py V3_1_TEMPLATE ENCODING_DSV32 OUT

V3_1_TEMPLATE is the Jinja chat template of deepseek-ai/DeepSeek-V3.1 (also
models/templates/deepseek-ai-DeepSeek-V3.1.jinja in ggml-org/llama.cpp), ENCODING_DSV32 the file
encoding/encoding_dsv32.py of deepseek-ai/DeepSeek-V3.2. Neither is part of this repository. Needs
`pip install jinja2`.
"""
import argparse
import importlib.util
import json
import random

import jinja2

TEXTS = ["", "hello", "Why is the sky blue?", "两个\n换行\n\n", "  spaces  ", "<think>no</think>", "a{b}c", "👩‍👩‍👧"]
ANSWERS = ["", "Because.", "thought</think>answer", "a</think>b</think>c", "\n\n"]


def conversation(rng):
    """Any order that ends with a user, most of them as chats go."""
    messages = [dict(role="system", content=rng.choice(TEXTS))] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(4)):
        role = rng.choice(["user", "assistant"] * 4 + ["system"])
        messages.append(dict(role=role, content=rng.choice(ANSWERS if role == "assistant" else TEXTS)))
    return messages + [dict(role="user", content=rng.choice(TEXTS))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["template", "encoding", "out"]:
        parser.add_argument(name)
    args = parser.parse_args()
    with open(args.template, encoding="utf-8") as f:
        template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(f.read())
    spec = importlib.util.spec_from_file_location("encoding_dsv32", args.encoding)
    encoding = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(encoding)

    rng = random.Random(31)
    cases = []
    for _ in range(60):
        messages, think = conversation(rng), rng.random() < 0.5
        v3_1 = template.render(messages=messages, thinking=think, add_generation_prompt=True,
                               bos_token=encoding.bos_token)
        v3_2 = encoding.encode_messages(messages, "thinking" if think else "chat")
        for name, prompt in [("v3.1", v3_1), ("v3.2", v3_2)]:
            cases.append(dict(format=name, think=think, messages=messages, prompt=prompt))
    with open(args.out, "w", encoding="utf-8") as f:
        json.dump(cases, f, ensure_ascii=False, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main()
