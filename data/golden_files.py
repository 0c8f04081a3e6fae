"""Token ids in, files out. What carries its final name is complete."""
import hashlib
import json
import os

import torch
from safetensors.torch import load_file, save_file


class Failure(Exception):
    """The golden cannot be made."""


def pad(rows):
    """Right-pad rows of different lengths with token 0; the mask is None if they are equal."""
    length = max(map(len, rows))
    tokens = torch.tensor([r + [0] * (length - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows])
    return tokens, None if mask.all() else mask


def read_tokens(file):
    """(rows of token ids, prompts) of a .safetensors, JSON or JSONL file."""
    if file.endswith(".safetensors"):
        rows = load_file(file)["tokens"].tolist()
        return rows, [""] * len(rows)
    with open(file) as f:
        text = f.read()
    try:
        items = json.loads(text)
    except json.JSONDecodeError:
        items = [json.loads(line) for line in text.splitlines() if line.strip()]
    items = [items] if isinstance(items, dict) or items and isinstance(items[0], int) else items
    return ([list(x["tokens"] if isinstance(x, dict) else x) for x in items],
            [x.get("prompt", "") if isinstance(x, dict) else "" for x in items])


def choose_tokens(args, vocab):
    if args.tokens:
        rows, prompts = read_tokens(args.tokens)
        if not rows or not all(rows):
            raise Failure(f"{args.tokens}: no tokens, or an empty sequence")
        wrong = [t for r in rows for t in r if not 0 <= t < vocab]
        if wrong:
            raise Failure(f"token {wrong[0]} is outside the vocabulary of {vocab}")
        return rows, prompts
    rng = torch.Generator().manual_seed(args.seed)
    return torch.randint(1, vocab, (args.batch, args.length), generator=rng).tolist(), [""] * args.batch


def choose_batches(args, vocab):
    """Batches of token ids (N, B, S) for a run of training."""
    if not args.batches:
        rng = torch.Generator().manual_seed(args.seed)
        return torch.randint(1, vocab, (args.trajectory, args.batch, args.length), generator=rng)
    batches = load_file(args.batches)["tokens"]
    if batches.dim() != 3 or len(batches) < args.trajectory:
        raise Failure(f"{args.batches}: tokens has shape {tuple(batches.shape)}, expected ({args.trajectory} or more "
                      "steps, sequences, positions)")
    if not 0 <= int(batches.min()) <= int(batches.max()) < vocab:
        raise Failure(f"{args.batches}: a token is outside the vocabulary of {vocab}")
    return batches[:args.trajectory].long()


def sha256(file):
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write(file, put):
    tmp = file + ".tmp"
    try:
        put(tmp)
        os.chmod(tmp, 0o644)
        os.replace(tmp, file)
    finally:
        if os.path.exists(tmp):
            os.remove(tmp)


def write_tensors(file, tensors, metadata=None):
    write(file, lambda tmp: save_file({k: v.contiguous() for k, v in tensors.items()}, tmp, metadata))


def write_text(file, text):
    def put(tmp):
        with open(tmp, "w") as f:
            f.write(text)
    write(file, put)


def write_json(file, value):
    write_text(file, json.dumps(value, indent=2) + "\n")


def write_shards(folder, tensors, count=2):
    """Split over `count` files with an index, as large checkpoints are."""
    names, where = sorted(tensors), {}
    size = -(-len(names) // count)
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = {n: tensors[n] for n in names[i * size:(i + 1) * size]}
        where.update(dict.fromkeys(part, file))
        write_tensors(os.path.join(folder, file), part)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(os.path.join(folder, "model.safetensors.index.json"),
               dict(metadata=dict(total_size=total), weight_map=where))


def widen(tensor):
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def write_jsonl(file, rows, prompts, logits, limit):
    """MaxText's golden format: one {"prompt", "tokens", "logits"} a line."""
    digits = "%.17g" if logits.dtype == torch.float64 else "%.9g"  # both round-trip

    def line(tokens, prompt, values):
        n = min(limit or len(tokens), len(tokens))
        table = ",".join("[" + ",".join(digits % v for v in row) + "]" for row in values[:n].tolist())
        return f'{{"prompt":{json.dumps(prompt)},"tokens":{json.dumps(tokens[:n])},"logits":[{table}]}}\n'

    write_text(file, "".join(map(line, rows, prompts, widen(logits))))
