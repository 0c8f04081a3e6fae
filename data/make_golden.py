#!/usr/bin/env python3
"""Golden outputs of DeepSeek-style models, computed with HuggingFace transformers on the CPU.

Three commands:

  family NAME OUT     draw a tiny checkpoint of a family from a seed, write it to OUT/checkpoint
                      and its goldens to OUT
  checkpoint DIR OUT  write goldens of the checkpoint in DIR to OUT (FP8 block-quantised
                      checkpoints are dequantised in double first); with --stream a checkpoint
                      larger than memory, or its first layers
  samples OUT         make every bundled sample again under OUT, and OUT/SHA256SUMS

Attention and experts always run in their eager form. fp32 and bf16 are what HuggingFace computes
in these types. fp64 is double throughout: where the model code asks for float32 (norms, softmax,
router, indexer, rotary angles, frequency table with its YaRN ramp) it is given float64, every
operation of the run is inspected, and the run fails if a narrower floating-point tensor appears.

Files written to OUT (`python make_golden.py COMMAND --help` lists what asks for each):
  logits.safetensors         tokens, logits.<dtype>; attention_mask if the lengths differ
  trace.<dtype>.safetensors  every module output of the first sequence
  left-padded.safetensors    tokens, attention_mask, logits.fp64
  ragged.safetensors         tokens, attention_mask, logits.fp64
  provenance.json            versions, settings, ties, noise of fp32 and bf16, sha256 of each file

A file is written under a temporary name and renamed, so what carries its final name is complete.
Exit status: 0 done, 1 the golden cannot be made (the reason is printed), 2 wrong usage.
"""
import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import types

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, modeling_rope_utils

from streamed_golden import Shards, build, dequantise, stream

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
NARROW = {torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex32}

# ----------------------------------------------------------------------------- tiny models
# No two sizes of a config are equal unless the family forces it, and no constant is 1 that need
# not be: a coincidence hides a bug. `gain` scales the linear layers: W ~ N(0, gain^2 / fan_in).


def yarn(factor, length, mscale, mscale_all_dim, theta=1000.0):
    return dict(rope_type="yarn", rope_theta=theta, factor=factor, beta_fast=8, beta_slow=0.25,
                original_max_position_embeddings=length, mscale=mscale, mscale_all_dim=mscale_all_dim)


COMMON = dict(max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0)
FAMILIES = {
    "v2lite": dict(model_type="deepseek_v2", gain=1.0, store="bf16", config=dict(
        vocab_size=101, hidden_size=42, num_hidden_layers=2, num_attention_heads=3, q_lora_rank=None,
        kv_lora_rank=20, qk_nope_head_dim=14, qk_rope_head_dim=12, v_head_dim=10, intermediate_size=76,
        moe_intermediate_size=18, n_routed_experts=11, num_experts_per_tok=4, n_shared_experts=2,
        first_k_dense_replace=1, topk_method="greedy", routed_scaling_factor=1.3, rms_norm_eps=1e-6,
        rope_parameters=yarn(6.0, 40, 0.707, 0.707))),
    "v2": dict(model_type="deepseek_v2", gain=1.0, store="bf16", config=dict(
        vocab_size=89, hidden_size=33, num_hidden_layers=2, num_attention_heads=3, q_lora_rank=23,
        kv_lora_rank=22, qk_nope_head_dim=16, qk_rope_head_dim=10, v_head_dim=15, intermediate_size=58,
        moe_intermediate_size=14, n_routed_experts=15, num_experts_per_tok=4, n_shared_experts=2,
        first_k_dense_replace=1, topk_method="group_limited_greedy", n_group=5, topk_group=2,
        routed_scaling_factor=1.7, rms_norm_eps=2e-6, rope_parameters=yarn(7.0, 36, 0.9, 0.5))),
    "v3": dict(model_type="deepseek_v3", gain=1.0, config=dict(
        vocab_size=103, hidden_size=44, num_hidden_layers=2, num_attention_heads=4, q_lora_rank=26,
        kv_lora_rank=22, qk_nope_head_dim=10, qk_rope_head_dim=12, v_head_dim=9, intermediate_size=70,
        moe_intermediate_size=13, n_routed_experts=18, num_experts_per_tok=5, n_shared_experts=1,
        n_group=6, topk_group=2, first_k_dense_replace=1, routed_scaling_factor=2.3, rms_norm_eps=3e-6,
        rope_parameters=yarn(8.0, 44, 1.0, 0.6))),
    "v32": dict(model_type="deepseek_v32", gain=0.5, config=dict(
        vocab_size=107, hidden_size=40, num_hidden_layers=3, num_attention_heads=4, q_lora_rank=24,
        kv_lora_rank=18, qk_nope_head_dim=11, qk_rope_head_dim=12, v_head_dim=13, intermediate_size=66,
        moe_intermediate_size=9, n_routed_experts=21, num_experts_per_tok=5, n_shared_experts=1,
        n_group=7, topk_group=2, first_k_dense_replace=1, routed_scaling_factor=1.9, rms_norm_eps=4e-6,
        index_n_heads=10, index_head_dim=16, index_topk=22, rope_parameters=yarn(9.0, 48, 1.0, 0.8))),
    "glm": dict(model_type="glm_moe_dsa", gain=1.0, store="bf16", config=dict(
        vocab_size=109, hidden_size=36, num_hidden_layers=5, num_attention_heads=4, q_lora_rank=22,
        kv_lora_rank=17, qk_nope_head_dim=13, qk_rope_head_dim=10, v_head_dim=14, intermediate_size=62,
        moe_intermediate_size=15, n_routed_experts=12, num_experts_per_tok=3, n_shared_experts=1,
        n_group=1, topk_group=1, first_k_dense_replace=2, routed_scaling_factor=2.5, rms_norm_eps=1e-5,
        index_n_heads=11, index_head_dim=16, index_topk=19,
        indexer_types=["full", "shared", "shared", "full", "shared"],
        rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "ties": dict(model_type="deepseek_v32", gain=0.5, config=dict(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=19,
        kv_lora_rank=14, qk_nope_head_dim=9, qk_rope_head_dim=6, v_head_dim=11, intermediate_size=50,
        moe_intermediate_size=12, n_routed_experts=12, num_experts_per_tok=5, n_shared_experts=2,
        n_group=4, topk_group=2, first_k_dense_replace=1, routed_scaling_factor=1.6, rms_norm_eps=1e-6,
        attention_bias=True, index_n_heads=3, index_head_dim=8, index_topk=17,
        rope_parameters=yarn(5.0, 40, 1.0, 1.0))),
    "fp8": dict(model_type="deepseek_v32", gain=0.6, store="fp8", config=dict(
        vocab_size=97, hidden_size=136, num_hidden_layers=2, num_attention_heads=3, q_lora_rank=72,
        kv_lora_rank=48, qk_nope_head_dim=20, qk_rope_head_dim=14, v_head_dim=26, intermediate_size=200,
        moe_intermediate_size=24, n_routed_experts=10, num_experts_per_tok=6, n_shared_experts=1,
        n_group=5, topk_group=4, first_k_dense_replace=1, routed_scaling_factor=2.2, rms_norm_eps=1e-6,
        index_n_heads=9, index_head_dim=16, index_topk=11, rope_parameters=yarn(4.0, 28, 1.0, 1.0))),
}
ALIASES = {"deepseek_v2": "v2lite", "deepseek_v3": "v3", "deepseek_v32": "v32", "glm_moe_dsa": "glm"}

# What `samples` makes: the arguments of `family`, run inside OUT.
NO_COPIES = r"^(?!.*(o_proj|embed_tokens)$)"  # o_proj is self_attn's output again
SLIM = r"layers\.\d+$|self_attn$|mlp$|gate|(q_a|kv_a)_layernorm|indexer(\.(scores|k_norm|weights_proj))?$|lm_head"
STREAMED_NAMES = (r"layers\.\d+$|(self_attn|input_layernorm|post_attention_layernorm|mlp)$|mlp\.gate\."
                  r"|indexer(\.(scores|k_norm|weights_proj))?$")
SAMPLES = [
    f"family v32 v32 --seed 32 --length 90 --batch 2 --trace --trace-names '{NO_COPIES}'"
    " --left-pad 29 --ragged 90,61",
    f"family v3 v3 --seed 3 --length 82 --batch 2 --trace --trace-names '{NO_COPIES}'"
    " --jsonl golden.jsonl --jsonl-length 24",
    f"family v2lite v2lite --seed 21 --length 78 --batch 2 --trace --trace-names '{NO_COPIES}'",
    "family v2 v2 --seed 22 --length 66 --batch 2",
    f"family glm glm --seed 5 --length 78 --batch 2 --trace --trace-names '{SLIM}'",
    f"family ties ties --seed 7 --length 74 --batch 2 --trace --trace-names '{SLIM}'",
    f"family fp8 fp8 --seed 8 --length 46 --batch 2 --trace --trace-names '{SLIM}'",
]


def draw(name, shape, gain, seed):
    """The tensor `name`, from the seed and the name alone."""
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    rng = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
    normal = torch.randn(shape, generator=rng)
    if name.endswith("e_score_correction_bias"):
        return -1.1 + 0.35 * normal
    if name.endswith("norm.weight"):
        return 0.4 + 1.3 * torch.rand(shape, generator=rng)
    if name.endswith("bias"):
        return 0.4 * normal
    if "embed_tokens" in name:
        return normal
    if name.endswith("gate.weight"):
        gain = 1.5
    if "lm_head" in name:
        gain = 1.0
    return normal * gain / shape[-1] ** 0.5


def make_checkpoint(family, folder, seed):
    """Write a tiny checkpoint of the family."""
    recipe = FAMILIES[family]
    settings = {**COMMON, **recipe["config"]}
    settings["num_key_value_heads"] = settings["num_attention_heads"]
    config = AutoConfig.for_model(recipe["model_type"], **settings)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(draw(name, tensor.shape, recipe["gain"], seed))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as tmp:
        model.save_pretrained(tmp)
        weights = load_file(os.path.join(tmp, "model.safetensors"))
        with open(os.path.join(tmp, "config.json")) as f:
            config = json.load(f)
    store = recipe.get("store", "fp32")
    if store != "fp32":  # published checkpoints: bf16, the router's correction bias fp32
        config["dtype"] = "bfloat16"
        weights = {k: w if k.endswith("correction_bias") else w.to(torch.bfloat16) for k, w in weights.items()}
    if store != "fp8":
        write_tensors(os.path.join(folder, "model.safetensors"), weights)
    else:
        for name in filter(QUANTISED.search, weights):  # blocks of unlike size: a scale of the wrong block shows
            weights[name][128:] *= 3
            weights[name][:, 128:] *= 0.25
        config["quantization_config"] = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic",
                                             weight_block_size=[128, 128], scale_fmt="ue8m0")
        write_shards(folder, quantise(weights))
    write_json(os.path.join(folder, "config.json"), config)


# ----------------------------------------------------------------------------- FP8 blocks


QUANTISED = re.compile(r"(?<!weights)(_proj|_with_mqa|indexer\.wq_b|indexer\.wk)\.weight$")


def spread(scale, shape, block):
    """One scale a block -> one scale an element."""
    return scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:shape[0], :shape[1]]


def quantise(weights, block=(128, 128)):
    """Block-quantise the linear layers to e4m3 with power-of-two scales; the rest stays as it is."""
    out = dict(weights)
    for name, w in weights.items():
        if QUANTISED.search(name):
            rows, columns = (-(-n // b) for n, b in zip(w.shape, block))
            w, scale = w.float(), torch.empty(rows, columns)
            for r in range(rows):
                for c in range(columns):
                    tile = w[r * block[0]:(r + 1) * block[0], c * block[1]:(c + 1) * block[1]]
                    scale[r, c] = 2.0 ** torch.ceil(torch.log2(tile.abs().max().clamp(min=1e-4) / 448))
            out[name] = (w / spread(scale, w.shape, block)).to(torch.float8_e4m3fn)
            out[name + "_scale_inv"] = scale
    return out


def block_size(settings):
    """Rows and columns that share a scale."""
    if settings["quant_method"] != "fp8":
        raise Failure(f"quantisation method {settings['quant_method']}: only fp8 is known")
    return settings.get("weight_block_size") or [128, 128]


def dequantised(folder, block):
    """All tensors of a block-quantised checkpoint, W = W8 * scale_inv computed in double."""
    raw = {}
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        raw.update(load_file(os.path.join(folder, file)))
    out = {}
    for name, w in raw.items():
        if name.endswith("_scale_inv"):
            continue
        if w.dtype == torch.float8_e4m3fn:
            w = dequantise(name, w, raw.get(name + "_scale_inv"), block)
        out[name] = w
    return out


# ----------------------------------------------------------------------------- running HuggingFace


def missing_experts(folder, count):
    """Expert weights that a layer with experts stored one by one lacks."""
    names = set()
    for file in (f for f in os.listdir(folder) if f.endswith(".safetensors")):
        with safe_open(os.path.join(folder, file), "pt") as f:
            names.update(f.keys())
    layers = {m[1] for n in names if (m := re.match(r"(.*\.mlp\.experts\.)\d+\.", n))}
    wanted = {f"{p}{e}.{w}_proj.weight" for p in layers for e in range(count) for w in ("gate", "up", "down")}
    return sorted(wanted - names)


# Not traced: containers without an output of their own, and the inside of an expert or dense MLP.
UNTRACED = re.compile(r"^(model)?$|rotary_emb|act_fn|mlp\.experts|mlp\.(shared_experts\.)?\w+_proj$|layers$")


class Failure(Exception):
    """The golden cannot be made."""


class Watch(TorchDispatchMode):
    """Sees every operation: refuses narrow floats if asked, keeps what the indexer's top-k saw."""

    def __init__(self, only_double):
        super().__init__()
        self.only_double, self.operations = only_double, 0
        self.indexer, self.scores, self.ties = None, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if self.only_double:
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, torch.Tensor) and leaf.dtype in NARROW:
                    raise Failure(f"fp64 run: {leaf.dtype} tensor of shape {tuple(leaf.shape)} in {func}")
        if self.indexer and func is torch.ops.aten.topk.default:
            seen, k = args[0], args[1]
            self.scores[self.indexer] = seen
            if k < seen.shape[-1]:
                top = seen.topk(k + 1, -1).values
                visible = top[..., k] > torch.finfo(seen.dtype).min
                self.ties += int((visible & (top[..., k - 1] == top[..., k])).sum())
        return out


@contextlib.contextmanager
def double_everywhere(model):
    """Inside, the model's code gets float64 wherever it names float32."""

    class Torch(types.ModuleType):
        float32 = float = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)

    modules = [sys.modules[type(model).__module__], modeling_rope_utils]
    to_float, default = torch.Tensor.float, torch.get_default_dtype()
    try:
        for module in modules:
            module.torch = Torch("torch")
        torch.Tensor.float = torch.Tensor.double
        torch.set_default_dtype(torch.float64)
        yield
    finally:
        for module in modules:
            module.torch = torch
        torch.Tensor.float = to_float
        torch.set_default_dtype(default)


class Runner:
    """The model of a checkpoint directory in one dtype, in memory or streamed."""

    def __init__(self, folder, dtype, streamed=False, layers=None, head=True):
        config, block, self.shards = AutoConfig.from_pretrained(folder), None, None
        if quantised := getattr(config, "quantization_config", None):
            block = block_size(quantised)
            del config.quantization_config
        kind = AutoModelForCausalLM._model_mapping[type(config)]
        # What the model wants kept in fp32 under fp16 (the indexer's weights_proj) is kept so under bf16 too.
        kind._keep_in_fp32_modules_strict = sorted({*(kind._keep_in_fp32_modules_strict or ()),
                                                    *(kind._keep_in_fp32_modules or ())})
        if streamed:
            layers = layers or config.num_hidden_layers
            if layers > config.num_hidden_layers:
                raise Failure(f"--layers 0:{layers}: the model has {config.num_hidden_layers}")
            self.model = build(kind, config, DTYPES[dtype], layers, head)
        else:
            self.model = self.load(kind, folder, config, block, dtype)
        self.model.eval()
        self.config, self.dtype, self.operations, self.ties = self.model.config, dtype, 0, 0
        if dtype == "fp64":
            self.model.double()
            rotary = self.model.model.rotary_emb
            with double_everywhere(self.model), Watch(True):
                init = rotary.compute_default_rope_parameters
                if rotary.rope_type != "default":
                    init = modeling_rope_utils.ROPE_INIT_FUNCTIONS[rotary.rope_type]
                rotary.inv_freq, rotary.attention_scaling = init(self.config)
                rotary.original_inv_freq = rotary.inv_freq.clone()
        if streamed:
            self.shards = Shards(folder, block)
            stream(self.model, self.shards)

    @staticmethod
    def load(kind, folder, config, block, dtype):
        source, weights = (None, dequantised(folder, block)) if block else (folder, None)
        try:
            model, info = kind.from_pretrained(
                source, config=config, state_dict=weights, dtype=DTYPES[dtype], attn_implementation="eager",
                experts_implementation="eager", output_loading_info=True)
        except RuntimeError as error:  # one expert of a layer is missing or has another shape
            gaps = missing_experts(folder, config.n_routed_experts)
            raise Failure(f"missing in the checkpoint: {', '.join(gaps)}" if gaps else
                          f"HuggingFace cannot load the checkpoint: {error}") from error
        beyond = re.compile(r"model\.layers\.(\d+)\.")  # a multi-token-prediction layer: HuggingFace has none
        surplus = [k for k in info["unexpected_keys"]
                   if not (m := beyond.match(k)) or int(m[1]) < config.num_hidden_layers]
        for what, names in (("missing", info["missing_keys"]), ("unexpected", surplus),
                            ("misshaped", info["mismatched_keys"])):
            if names:
                raise Failure(f"{what} in the checkpoint: {', '.join(map(str, sorted(names)))}")
        return model

    @torch.no_grad()
    def __call__(self, tokens, mask=None, trace=None, names=""):
        """Logits of a batch (None without a head); module outputs whose name matches are put into `trace`."""
        inputs = dict(input_ids=tokens, use_cache=False)
        if mask is not None:  # positions count the real tokens
            inputs.update(attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0))
        watch = Watch(self.dtype == "fp64")
        hooks = []

        def keep(name, out):
            if name.endswith(".mlp.gate"):
                parts = {f"{name}.{part}": value for part, value in zip(("logits", "weights", "experts"), out)}
            else:
                parts = {name: out[0] if isinstance(out, tuple) else out}
            trace.update({k: v.clone() for k, v in parts.items() if re.search(names, k)})

        for name, module in self.model.named_modules():
            if name.endswith(".indexer"):
                hooks.append(module.register_forward_pre_hook(lambda *_, n=name: setattr(watch, "indexer", n)))
                hooks.append(module.register_forward_hook(lambda *_: setattr(watch, "indexer", None)))
            if trace is not None and not UNTRACED.search(name) and not isinstance(module, torch.nn.Identity):
                hooks.append(module.register_forward_hook(lambda _m, _i, out, n=name: keep(n, out)))
        try:
            with double_everywhere(self.model) if self.dtype == "fp64" else contextlib.nullcontext(), watch:
                if self.model.lm_head is not None:
                    logits = last = self.model(**inputs).logits
                else:
                    logits, last = None, self.model.model(**inputs).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        self.operations += watch.operations
        self.ties = watch.ties
        if not torch.isfinite(last if mask is None else last[mask.bool()]).all():
            raise Failure(f"{self.dtype}: {'an output' if logits is None else 'a logit'} is not finite")
        if trace is not None:
            trace.update({k: s for name, s in watch.scores.items() if re.search(names, k := name + ".scores")})
        return logits


# ----------------------------------------------------------------------------- inputs


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


# ----------------------------------------------------------------------------- output


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


def write_tensors(file, tensors):
    write(file, lambda tmp: save_file({k: v.contiguous() for k, v in tensors.items()}, tmp))


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


def noise(exact, other, mask):
    """Distance of logits from the fp64 ones over the real positions; KL(fp64 || other)."""
    p, q = (x.double() if mask is None else x.double()[mask.bool()] for x in (exact, other))
    lp, lq = p.log_softmax(-1), q.log_softmax(-1)
    kl = (lp.exp() * (lp - lq)).sum(-1).clamp(min=0)
    return dict(max_abs=float((p - q).abs().max()), kl_mean=float(kl.mean()), kl_max=float(kl.max()))


def make_goldens(args, folder, family=None):
    """Write all goldens asked for of the checkpoint in `folder`."""
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(folder, "config.json")) as f:
        vocab = json.load(f)["vocab_size"]
    rows, prompts = choose_tokens(args, vocab)
    tokens, mask = pad(rows)
    lengths = args.ragged
    if lengths == [0]:
        lengths = [max(1, len(r) - i * len(r) // (len(rows) + 1)) for i, r in enumerate(rows)]
    if lengths and (len(lengths) != len(rows) or any(not 0 < n <= len(r) for n, r in zip(lengths, rows))):
        raise Failure("--ragged needs one length a sequence, none longer than the sequence")
    if args.left_pad and (mask is not None or not 0 < args.left_pad < tokens.shape[1]):
        raise Failure("--left-pad needs sequences of one length, longer than the padding")
    files, logits, facts, inputs = {}, {}, {}, set()

    def save(name, tensors):
        write_tensors(os.path.join(args.out, name), tensors)
        files[name] = sha256(os.path.join(args.out, name))

    dtypes = [d for d in DTYPES if d in args.dtypes + args.trace]
    if args.left_pad or args.ragged:
        dtypes = ["fp64"] + [d for d in dtypes if d != "fp64"]
    for dtype in dtypes:
        run = Runner(folder, dtype, args.stream, args.layers, args.logits)
        trace = {} if dtype in args.trace else None
        if (out := run(tokens, mask, trace, args.trace_names)) is not None:
            logits[dtype] = out
        facts.setdefault("ties_at_boundary", run.ties)
        if trace is not None:
            first = torch.tensor(rows[:1])
            if mask is not None:  # sequences of different lengths: the first one alone
                trace.clear()
                run(first, trace=trace, names=args.trace_names)
            else:  # its part of the batch; the router sees all tokens in one row
                trace = {k: v[:first.numel() if ".gate." in k else 1] for k, v in trace.items()}
            trace = {k: widen(v) for k, v in trace.items()}
            save(f"trace.{dtype}.safetensors", {"tokens": first, **trace})
        if dtype == "fp64" and args.left_pad:
            n = args.left_pad
            moved, real = tokens.clone(), torch.ones_like(tokens)
            moved[-1, :n], real[-1, :n] = 0, 0
            save("left-padded.safetensors", {"tokens": moved, "attention_mask": real, "logits.fp64": run(moved, real)})
        if dtype == "fp64" and args.ragged:
            cut, real = pad([r[:n] for r, n in zip(rows, lengths)])
            real = torch.ones_like(cut) if real is None else real
            save("ragged.safetensors", {"tokens": cut, "attention_mask": real, "logits.fp64": run(cut, real)})
        if dtype == "fp64":
            facts["fp64"] = "no float32 tensor in the run"
            facts["fp64_operations_checked"] = run.operations
        config = run.config
        if run.shards:
            facts["streamed_layers"] = f"0:{config.num_hidden_layers}"
            inputs |= run.shards.used
        del run

    if logits:
        kept = {f"logits.{d}": widen(logits[d]) for d in args.dtypes}
        save("logits.safetensors", {"tokens": tokens, **({} if mask is None else {"attention_mask": mask}), **kept})
    if args.jsonl:
        write_jsonl(os.path.join(args.out, args.jsonl), rows, prompts, logits[args.jsonl_dtype], args.jsonl_length)
        files[args.jsonl] = sha256(os.path.join(args.out, args.jsonl))

    stats = {}
    if "fp64" in logits:
        real = logits["fp64"] if mask is None else logits["fp64"][mask.bool()]
        stats["logit_std"] = float(real.std())
        for d in ("fp32", "bf16"):
            if d in logits:
                stats.update({f"{d}_{k}": v for k, v in noise(logits["fp64"], logits[d], mask).items()})
    made_of = {f: sha256(os.path.join(folder, f)) for f in sorted(os.listdir(folder))
               if f == "config.json" or f.endswith(".safetensors.index.json")
               or f.endswith(".safetensors") and (not args.stream or f in inputs)}
    write_json(os.path.join(args.out, "provenance.json"), {
        "command": args.command, "family": config.model_type, **({"recipe": family} if family else {}),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "dtypes": args.dtypes, "attn_implementation": "eager", "experts_implementation": "eager",
        "seed": None if args.tokens and not family else args.seed, "batch": len(rows), "S": tokens.shape[1],
        "index_topk": getattr(config, "index_topk", None), **facts, "noise": stats,
        "checkpoint": made_of, "files": dict(sorted(files.items()))})


# ----------------------------------------------------------------------------- commands


def run_family(args):
    args.name = ALIASES.get(args.name, args.name)
    folder = os.path.join(args.out, "checkpoint")
    make_checkpoint(args.name, folder, args.seed)
    make_goldens(args, folder, args.name)


def run_checkpoint(args):
    if not os.path.isfile(os.path.join(args.dir, "config.json")):
        raise Failure(f"{args.dir} has no config.json")
    make_goldens(args, args.dir)


def run_samples(args):
    for line in SAMPLES:
        print(f"make_golden.py {line}", flush=True)
        sample = parse(shlex.split(line))
        shutil.rmtree(os.path.join(args.out, sample.out), ignore_errors=True)
        sample.out = os.path.join(args.out, sample.out)
        sample.run(sample)
    names = sorted(os.path.relpath(os.path.join(d, f), args.out) for d, _, fs in os.walk(args.out) for f in fs)
    sums = "".join(f"{sha256(os.path.join(args.out, n))}  {n}\n" for n in names if n != "SHA256SUMS")
    write_text(os.path.join(args.out, "SHA256SUMS"), sums)


def dtype_list(text):
    names = text.split(",")
    if not names or any(n not in DTYPES for n in names):
        raise argparse.ArgumentTypeError(f"expected a list of {', '.join(DTYPES)}, got {text!r}")
    return [d for d in DTYPES if d in names]


def lengths_list(text):
    try:
        return [int(x) for x in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected lengths such as 96,61, got {text!r}") from None


def span(text):
    if not re.fullmatch(r"0:[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"expected 0:B (the first layer's input is the embedding), got {text!r}")
    return int(text[2:])


def parse(argv):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="make_golden.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1: repeatable sums)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    golden = argparse.ArgumentParser(add_help=False)
    g = golden.add_argument_group("input")
    g.add_argument("--tokens", metavar="FILE", help="token ids: JSON (a list of lists, or of {prompt, tokens}), "
                   "JSONL of the latter, or a .safetensors with `tokens`. Unequal lengths are right-padded "
                   "and an attention_mask is written")
    g.add_argument("--length", type=int, default=96, metavar="S", help="draw sequences of S random tokens (default 96)")
    g.add_argument("--batch", type=int, default=2, metavar="B", help="draw B sequences (default 2)")
    g.add_argument("--seed", type=int, default=0, metavar="N",
                   help="seed of the tokens, and of `family`'s weights (default 0)")
    g = golden.add_argument_group("output")
    g.add_argument("--dtypes", type=dtype_list, metavar="LIST",
                   help="dtypes of the logits, of fp64,fp32,bf16 (default all; bf16 is stored widened to F32)")
    g.add_argument("--trace", type=dtype_list, nargs="?", const=[], metavar="LIST",
                   help="write the trace of the first sequence in these dtypes (fp64 if no list is given)")
    g.add_argument("--trace-names", metavar="REGEX", help="keep only the tensors whose name matches")
    g.add_argument("--left-pad", type=int, default=0, metavar="N", help="also the batch with the first N tokens of its "
                   "last sequence replaced by padding; positions count real tokens")
    g.add_argument("--ragged", type=lengths_list, nargs="?", const=[0], default=[], metavar="N,N,..",
                   help="also the batch with sequence i cut to the i-th length and right-padded "
                   "(without lengths: each shorter than the one before)")
    g.add_argument("--jsonl", metavar="NAME", help="also OUT/NAME in MaxText's format: {prompt, tokens, logits} a line")
    g.add_argument("--jsonl-dtype", choices=list(DTYPES), default="fp32", help="its logits' dtype (default fp32)")
    g.add_argument("--jsonl-length", type=int, metavar="S", help="its positions, from the first (default all)")

    p = commands.add_parser("family", parents=[golden], formatter_class=raw, help="a tiny checkpoint and its goldens",
                            description="Draw a tiny checkpoint from a seed and make its goldens.\n\nNAME is one of "
                            + ", ".join(FAMILIES) + "\nor of " + ", ".join(f"{a} (= {b})" for a, b in ALIASES.items()))
    p.add_argument("name", choices=[*FAMILIES, *ALIASES], metavar="NAME", help="which model")
    p.add_argument("out", metavar="OUT", help="folder to write; made if absent")
    p.set_defaults(run=run_family, stream=False, layers=None, logits=True)

    p = commands.add_parser("checkpoint", parents=[golden], formatter_class=raw, help="goldens of a checkpoint",
                            description="Make goldens of a checkpoint directory (config.json and safetensors).")
    p.add_argument("dir", metavar="DIR", help="checkpoint directory")
    p.add_argument("out", metavar="OUT", help="folder to write; made if absent")
    g = p.add_argument_group("checkpoints larger than memory")
    g.add_argument("--stream", action="store_true", help="read weights from the shards as modules need them and drop "
                   "them after. Defaults here: --dtypes fp32; --trace in the same dtypes; --trace-names for blocks, "
                   "their norms, attention, MLP, router and the indexer's ids, scores, weights_proj and k_norm")
    g.add_argument("--layers", type=span, metavar="0:B", help="with --stream: only the first B layers (default all); "
                   "logits only if they are all")
    g.add_argument("--no-logits", dest="logits", action="store_false", help="with --stream: no last linear layer")
    p.set_defaults(run=run_checkpoint)

    p = commands.add_parser("samples", formatter_class=raw, help="the bundled samples",
                            description="Make every bundled sample again:\n\n  " + "\n  ".join(SAMPLES))
    p.add_argument("out", metavar="OUT", help="folder to write; samples in it are replaced")
    p.set_defaults(run=run_samples)

    args = parser.parse_args(argv)
    if args.run is not run_samples:
        if not args.stream and (args.layers or not args.logits):
            parser.error("--layers and --no-logits need --stream")
        if args.stream and (args.left_pad or args.ragged or args.jsonl):
            parser.error("--stream makes no --left-pad, --ragged or --jsonl")
        args.dtypes = args.dtypes or (["fp32"] if args.stream else list(DTYPES))
        if args.stream or args.trace == []:
            args.trace = args.trace or (args.dtypes if args.stream else ["fp64"])
        args.trace = args.trace or []
        if args.trace_names is None:
            args.trace_names = STREAMED_NAMES if args.stream else ""
    if getattr(args, "jsonl", None):
        if os.path.basename(args.jsonl) != args.jsonl:
            parser.error("--jsonl takes a file name, not a path: the file goes to OUT")
        if args.jsonl_dtype not in args.dtypes:
            parser.error(f"--jsonl-dtype {args.jsonl_dtype} is not among --dtypes")
    # An absolute path would say where the files happened to lie: only its last part is recorded.
    args.command = shlex.join(["make_golden.py"] + [os.path.basename(a.rstrip("/")) if os.path.isabs(a) else a
                                                    for a in argv])
    return args


def main():
    args = parse(sys.argv[1:])
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        args.run(args)
    except (Failure, OSError, ValueError, SafetensorError) as error:
        print(f"make_golden.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
