#!/usr/bin/env python3
"""Writes a deepseek_v32 checkpoint as GGUF (llama.cpp's architecture deepseek32).

    python checkpoint_to_gguf.py CHECKPOINT OUT.gguf --type f32|bf16

For tokens, not for text: the file has no vocabulary. What llama.cpp expects otherwise than the
checkpoint has it (conversion/deepseek.py and src/models/deepseek32.cpp of llama.cpp, as in
llama-cpp-python 0.3.36):

  - kv_b_proj is split per head into k_b (transposed) and v_b; experts are packed;
  - vectors, the router and the indexer's weights_proj are F32;
  - index heads have a power of two of channels, at least 64, for the Hadamard rotation. Smaller
    ones are widened with zero rows. A LayerNorm over D' > D channels of which D' - D are zero is
    that over D if the D have mean zero and the gain is sqrt(D/D') as large: so wk is centred over its
    rows. Its eps then counts D'/D times; the scale of all scores changes, which moves no selection.
"""
import argparse
import json
import math
import os
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open

BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.indexer.k_norm": "indexer.k_norm",
    "self_attn.indexer.weights_proj": "indexer.proj",
    "self_attn.indexer.wk": "indexer.attn_k",
    "self_attn.indexer.wq_b": "indexer.attn_q_b",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
FLOAT32 = ("_norm", "ffn_gate_inp", "exp_probs_b", "indexer.proj")


class Checkpoint:
    """Tensors by name, from one file or shards."""

    def __init__(self, directory):
        self.config = json.loads((directory / "config.json").read_text())
        self.files = {}
        for path in sorted(directory.glob("*.safetensors")):
            file = safe_open(path, framework="pt")
            self.files.update({name: file for name in file.keys()})

    def __contains__(self, name):
        return name in self.files

    def __getitem__(self, name):
        tensor = self.files[name].get_tensor(name)
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            raise SystemExit(f"{name} is {tensor.dtype}; convert the checkpoint first: dsa-run convert IN OUT --dtype bf16")
        return tensor.float()


def write_hyperparameters(writer, config):
    heads, rope, rank = config["num_attention_heads"], config["qk_rope_head_dim"], config["kv_lora_rank"]
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(scaling.get("rope_theta", config.get("rope_theta", 10000.0)))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(rank)
    writer.add_key_length(rank + rope)
    writer.add_value_length(rank)
    writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_rope_dimension_count(rope)
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if scaling.get("rope_type", scaling.get("type", "default")) == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(scaling.get("beta_fast", 32))
        writer.add_rope_scaling_yarn_beta_slow(scaling.get("beta_slow", 1))
        writer.add_rope_scaling_yarn_log_mul(0.1 * scaling.get("mscale_all_dim", 0))
    writer.add_indexer_head_count(config["index_n_heads"])
    writer.add_indexer_key_length(index_width(config))
    writer.add_indexer_top_k(config["index_topk"])
    writer.add_tokenizer_model("none")


def index_width(config):
    return max(64, 1 << (config["index_head_dim"] - 1).bit_length())


def widen(name, tensor, config):
    """A tensor of the indexer for index_width() channels a head."""
    heads, old, new = config["index_n_heads"], config["index_head_dim"], index_width(config)
    if new == old:
        return tensor
    if name == "indexer.attn_q_b":
        return torch.nn.functional.pad(tensor.view(heads, old, -1), (0, 0, 0, new - old)).reshape(heads * new, -1)
    if name == "indexer.attn_k":
        return torch.nn.functional.pad(tensor - tensor.mean(0, keepdim=True), (0, 0, 0, new - old))
    if name == "indexer.k_norm.weight":
        return torch.nn.functional.pad(tensor * math.sqrt(old / new), (0, new - old))
    return torch.nn.functional.pad(tensor, (0, new - old))  # indexer.k_norm.bias


def blocks(checkpoint):
    """(name, tensor) of every layer, one after the other."""
    config = checkpoint.config
    heads, nope, value = (config[k] for k in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    for layer in range(config["num_hidden_layers"]):
        at, to = f"model.layers.{layer}.", f"blk.{layer}."
        for theirs, ours in BLOCK_NAMES.items():
            for kind in ("weight", "bias"):
                if at + theirs + "." + kind in checkpoint:
                    tensor = checkpoint[at + theirs + "." + kind]
                    if ours.startswith("indexer.") and ours != "indexer.proj":
                        tensor = widen(ours + "." + kind if ours == "indexer.k_norm" else ours, tensor, config)
                    yield to + ours + "." + kind, tensor
        kv_b = checkpoint[at + "self_attn.kv_b_proj.weight"].view(heads, nope + value, -1)
        yield to + "attn_k_b.weight", kv_b[:, :nope].transpose(1, 2).contiguous()
        yield to + "attn_v_b.weight", kv_b[:, nope:].contiguous()
        if at + "mlp.gate.e_score_correction_bias" in checkpoint:
            yield to + "exp_probs_b.bias", checkpoint[at + "mlp.gate.e_score_correction_bias"]
        if at + "mlp.gate.weight" in checkpoint:
            for matrix in ("gate", "up", "down"):
                yield to + f"ffn_{matrix}_exps.weight", torch.stack(
                    [checkpoint[at + f"mlp.experts.{e}.{matrix}_proj.weight"] for e in range(config["n_routed_experts"])])


def convert(checkpoint, out, kind):
    config = checkpoint.config
    if config["model_type"] != "deepseek_v32" or config.get("attention_bias"):
        raise SystemExit(f"model_type is {config['model_type']}, attention_bias {config.get('attention_bias')}; "
                         "llama.cpp's deepseek32 takes deepseek_v32 without attention biases")
    writer = gguf.GGUFWriter(out, "deepseek32")
    write_hyperparameters(writer, config)
    named = [("token_embd.weight", checkpoint["model.embed_tokens.weight"]),
             ("output_norm.weight", checkpoint["model.norm.weight"])]
    if not config.get("tie_word_embeddings"):
        named.append(("output.weight", checkpoint["lm_head.weight"]))
    for source in (named, blocks(checkpoint)):
        for name, tensor in source:
            if kind == "f32" or tensor.dim() == 1 or any(part in name for part in FLOAT32):
                writer.add_tensor(name, tensor.numpy())
            else:
                bits = tensor.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
                writer.add_tensor(name, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=("f32", "bf16"), default="bf16")
    arguments = parser.parse_args()
    partial = arguments.out.with_suffix(".partial")
    convert(Checkpoint(arguments.checkpoint), partial, arguments.type)
    os.replace(partial, arguments.out)


if __name__ == "__main__":
    main()
