"""The tiny models of the samples: their configs, weights drawn from a seed, FP8 blocks."""
import hashlib
import json
import os
import re
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from golden_files import Failure, write_json, write_shards, write_tensors
from streamed_golden import dequantise

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
