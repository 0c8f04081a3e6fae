"""HuggingFace models larger than memory: weights are read when a module runs and dropped after it.

The model is HuggingFace's own, built on the meta device, where a weight has a shape and no data:
mask, rotary embedding, sharing of chosen keys and every forward are its code, unchanged. `stream`
gives each module its weights from the safetensors shards for the time of its forward, experts one
at a time, and reads the embedding and the head by rows. In memory at a time: the weights of one
linear layer or one expert, the activations, and what is traced.
"""
import json
import os
import re

import torch
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

HEAD_ROWS = 4096  # of the head, at a time


def dequantise(name, w, scale, block, dtype=torch.float64):
    """W8 * scale_inv of each block: exact in double, and in fp32 rounded once."""
    if scale is None:
        raise ValueError(f"{name} is F8_E4M3 and has no {name}_scale_inv")
    expected = tuple(-(-n // b) for n, b in zip(w.shape, block))
    if tuple(scale.shape) != expected:
        raise ValueError(f"{name}_scale_inv has shape {tuple(scale.shape)}, expected {expected}")
    work = dtype if dtype == torch.float32 else torch.float64
    out, scale = w.to(work), scale.to(work)
    for row, scales in enumerate(scale):
        out[row * block[0]:(row + 1) * block[0]] *= scales.repeat_interleave(block[1])[:w.shape[1]]
    return out.to(dtype)


class Shards:
    """The tensors of a checkpoint directory, read one at a time, FP8 blocks dequantised."""

    def __init__(self, folder, block):
        self.folder, self.block, self.used = folder, block, set()
        index = os.path.join(folder, "model.safetensors.index.json")
        if os.path.isfile(index):
            with open(index) as f:
                self.files = json.load(f)["weight_map"]
        else:
            self.files = {}
            for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
                with self._open(file) as f:
                    self.files.update(dict.fromkeys(f.keys(), file))

    def _open(self, file):
        return safe_open(os.path.join(self.folder, file), "pt")  # mapped, so open as long as a tensor is read

    def shapes(self, names):
        """Shapes of those of the names that there are; from the headers alone."""
        shapes, by_file = {}, {}
        for name in names:
            if name in self.files:
                by_file.setdefault(self.files[name], []).append(name)
        for file, held in by_file.items():
            with self._open(file) as f:
                shapes.update((name, tuple(f.get_slice(name).get_shape())) for name in held)
        return shapes

    def _raw(self, name, rows=slice(None)):
        file = self.files[name]
        self.used.add(file)
        with self._open(file) as f:
            return f.get_slice(name)[rows]

    def read(self, name, dtype):
        with _disable_current_modes():  # reading is not part of the run
            w = self._raw(name)
            if w.dtype != torch.float8_e4m3fn:
                return w.to(dtype)
            scale = name + "_scale_inv"
            return dequantise(name, w, self._raw(scale) if scale in self.files else None, self.block, dtype)

    def rows(self, name, begin, end, dtype):
        with _disable_current_modes():
            w = self._raw(name, slice(begin, end))
            if w.dtype == torch.float8_e4m3fn:
                raise ValueError(f"{name} is F8_E4M3: an embedding or a head in FP8 cannot be streamed")
            return w.to(dtype)


class Embedding(nn.Module):
    """Rows of the table for the tokens given."""

    def __init__(self, shards, name, dtype):
        super().__init__()
        self.row = lambda token: shards.rows(name, token, token + 1, dtype)

    def forward(self, tokens):
        distinct, where = tokens.unique(return_inverse=True)
        return torch.cat([self.row(t) for t in distinct.tolist()])[where]


class Head(nn.Module):
    """The last linear layer, some rows at a time."""

    def __init__(self, shards, name, vocab, dtype):
        super().__init__()
        self.vocab, self.rows = vocab, lambda a, b: shards.rows(name, a, b, dtype)

    def forward(self, x):
        out = x.new_empty(*x.shape[:-1], self.vocab)
        for a in range(0, self.vocab, HEAD_ROWS):
            b = min(a + HEAD_ROWS, self.vocab)
            out[..., a:b] = nn.functional.linear(x, self.rows(a, b))
        return out


class Experts:
    """What HuggingFace's experts index by expert: the parts of one expert, one below the other."""

    def __init__(self, shards, prefix, parts, dtype):
        self.shards, self.prefix, self.parts, self.dtype = shards, prefix, parts, dtype

    def names(self, expert):
        return [f"{self.prefix}.{expert}.{part}.weight" for part in self.parts]

    def __getitem__(self, expert):
        parts = [self.shards.read(name, self.dtype) for name in self.names(int(expert))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def build(kind, config, dtype, layers, head):
    """The first `layers` layers on the meta device; the last norm and the head only after the last layer."""
    whole = layers == config.num_hidden_layers
    config.num_hidden_layers = layers
    with torch.device("meta"):
        model = kind._from_config(config, dtype=dtype, attn_implementation="eager", experts_implementation="eager")
    plan = model._get_dtype_plan(dtype)  # HuggingFace keeps these wider
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        for pattern, wide in plan.items():
            if re.search(rf"(^|\.){re.escape(pattern)}($|\.)", name):
                weight.data = weight.data.to(wide)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    if not whole:
        model.model.norm = nn.Identity()
    if not (whole and head):
        model.lm_head = None
    return model


def stream(model, shards):
    """Give the modules of a model on the meta device their weights for the time they run."""
    config, dtype = model.config, model.model.embed_tokens.weight.dtype
    tied = model.lm_head is not None and config.tie_word_embeddings
    wanted = {}  # name in the checkpoint -> shape

    def lend(prefix, module):
        names = {n: f"{prefix}.{n}" for n in {**module._parameters, **module._buffers}
                 if n not in module._non_persistent_buffers_set and getattr(module, n) is not None}
        wanted.update((full, tuple(getattr(module, n).shape)) for n, full in names.items())
        empty = {n: getattr(module, n) for n in names}

        def put(*_):
            for n, full in names.items():
                value = shards.read(full, empty[n].dtype)
                setattr(module, n, nn.Parameter(value, False) if n in module._parameters else value)

        def drop(*_):
            for n in names:
                setattr(module, n, empty[n])

        if names:
            module.register_forward_pre_hook(put)
            module.register_forward_hook(drop)

    for prefix, module in list(model.named_modules()):
        if isinstance(getattr(module, "gate_up_proj", None), nn.Parameter):  # the routed experts
            for stacked, parts in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
                count, rows, columns = getattr(module, stacked).shape
                delattr(module, stacked)
                experts = Experts(shards, prefix, parts, dtype)
                setattr(module, stacked, experts)
                wanted.update((n, (rows // len(parts), columns)) for e in range(count) for n in experts.names(e))
        elif prefix not in ("lm_head", "model.embed_tokens"):
            lend(prefix, module)
    table = (config.vocab_size, config.hidden_size)
    wanted["model.embed_tokens.weight"] = table
    model.model.embed_tokens = Embedding(shards, "model.embed_tokens.weight", dtype)
    if model.lm_head is not None:
        name = "model.embed_tokens.weight" if tied else "lm_head.weight"
        wanted[name] = table
        model.lm_head = Head(shards, name, config.vocab_size, dtype)

    found = shards.shapes(wanted)
    layer = re.compile(r"model\.layers\.(\d+)\.")
    for what, names in (
            ("missing", wanted.keys() - found.keys()),
            ("misshaped", [n for n in found if found[n] != wanted[n]]),
            ("unexpected", [n for n in shards.files if (m := layer.match(n)) and int(m[1]) < config.num_hidden_layers
                            and n not in wanted and n.removesuffix("_scale_inv") not in wanted])):
        if names:
            raise ValueError(f"{what} in the checkpoint: {', '.join(sorted(names))}")
