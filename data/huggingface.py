"""A model as HuggingFace transformers runs it: in fp32, bf16, or double in every operation."""
import contextlib
import os
import re
import sys
import types

import torch
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, modeling_rope_utils

from golden_files import Failure
from streamed_golden import Shards, build, stream
from tiny_models import block_size, dequantised

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
NARROW = {torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex32}


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


def parts_of(name, out):
    """What a module returned, by the names of a trace."""
    if name.endswith(".mlp.gate"):
        return {f"{name}.{part}": value for part, value in zip(("logits", "weights", "experts"), out)}
    return {name: out[0] if isinstance(out, tuple) else out}


def traced_modules(model):
    return [(name, module) for name, module in model.named_modules()
            if not UNTRACED.search(name) and not isinstance(module, torch.nn.Identity)]


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
            trace.update({k: v.clone() for k, v in parts_of(name, out).items() if re.search(names, k)})

        for name, module in self.model.named_modules():
            if name.endswith(".indexer"):
                hooks.append(module.register_forward_pre_hook(lambda *_, n=name: setattr(watch, "indexer", n)))
                hooks.append(module.register_forward_hook(lambda *_: setattr(watch, "indexer", None)))
        for name, module in traced_modules(self.model) if trace is not None else ():
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
