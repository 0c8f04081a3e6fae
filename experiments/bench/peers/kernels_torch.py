#!/usr/bin/env python3
"""Other people's kernels on the cases of `dsa-verify ops`, for its judge.

    dsa-verify ops --dump CASES [--layout flashmla]
    kernels_torch.py CASES OUT [--peer flashmla] [--source DIR] [--device cuda]
    dsa-verify ops --against OUT [--layout flashmla]

    peer                  layout     needs, besides a Hopper GPU
    torch                 none       nothing, any device: every op plainly in float32
    flashmla              flashmla   the package flash_mla of 2026-01-16 or later
    tilelang              tilelang   tilelang, and --source its examples/deepseek_v32: sparse_mla_fwd
    tilelang-pipelined    tilelang   the same: sparse_mla_fwd_pipelined
    deepgemm              deepgemm   the package deep_gemm
    deepgemm-paged        deepgemm   deep_gemm 2.2 or later
    tilelang-index        deepgemm   as tilelang: fp8_lighting_indexer
    deepseek-index        deepgemm   tilelang 0.1.6, and --source inference of DeepSeek-V3.2-Exp: kernel

What a peer does not take, or raises an error on, is left out, and the judge says so. docs/ops.md is the
format of the files. Exit status: 1 a case raised an error, 3 there is no such package or file here, or
nothing that it takes.
"""
import argparse
import importlib
import inspect
import json
import pathlib
import re
import sys

try:
    import torch
    import torch.nn.functional as F
    from safetensors import safe_open
    from safetensors.torch import save_file
except ModuleNotFoundError as e:
    print(f"the package {e.name} is not installed")
    sys.exit(3)

RUN = 128  # channels of an FP8 latent that share a scale


def embed(x, s):
    return {"y": x["table"][x["tokens"].long()]}


def rmsnorm(x, s):
    return {"y": F.rms_norm(x["x"], x["g"].shape, x["g"], s["eps"])}


def layernorm(x, s):
    return {"y": F.layer_norm(x["x"], x["g"].shape, x["g"], x["b"], s["eps"])}


def rope(x, s):
    y, first, half = x["x"].clone(), int(s["first"]), x["cos"].shape[1]
    part = y[..., first:first + 2 * half]
    a, b = (part[..., ::2], part[..., 1::2]) if s["interleaved"] else part.split(half, -1)
    cos, sin = x["cos"][:, None], x["sin"][:, None]
    turned = (a * cos - b * sin, b * cos + a * sin)
    y[..., first:first + 2 * half] = (
        torch.stack(turned, -1).flatten(-2) if s["interleaved"] else torch.cat(turned, -1))
    return {"y": y}


def quantised(x, ue8m0):
    """Rows of x as e4m3 and a scale each, as act_quant does in the official kernel.py."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-4) * (1 / 448)
    if ue8m0:
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def hadamard_e4m3(x, s):
    y, D = x["x"].to(torch.bfloat16).float(), x["x"].shape[1]
    half = 1
    while half < D:
        a, b = y.view(-1, D // (2 * half), 2, half).unbind(2)
        y = torch.stack((a + b, a - b), 2).reshape(-1, D)
        half *= 2
    y, scale = quantised((y * D ** -0.5).to(torch.bfloat16).float(), s["ue8m0"])
    return {"y": y, "scale": scale[:, 0]}


def seen_as(dtype, x):
    """The bytes of (rows, n) as another type, in memory of their own: view() wants them aligned."""
    return torch.empty(x.shape, dtype=x.dtype).copy_(x).view(dtype)


def latent_e4m3(x, s):
    R = int(s["R"])
    runs = [quantised(run, s["ue8m0"]) for run in x["x"][:, :R].split(RUN, -1)]
    parts = [y for y, _ in runs] + [scale for _, scale in runs] + [x["x"][:, R:].to(torch.bfloat16)]
    return {"y": torch.cat([seen_as(torch.uint8, p) for p in parts], -1)}


def scaled(x, scale, rows=1):
    """e4m3 numbers times a scale for every `rows` x 128 block."""
    wide = scale.repeat_interleave(rows, 0).repeat_interleave(RUN, 1)
    return x.float() * wide[:x.shape[0], :x.shape[1]]


def linear(x, s):
    a, w = x["x"], x["w"]
    if "x_scale" in x:
        a, w = scaled(a, x["x_scale"]), scaled(w, x["w_scale"], RUN)
    return {"y": F.linear(a.float(), w.float(), x.get("bias"))}


def swiglu(x, s):
    gate, up = x["gate_up"].chunk(2, -1)
    return {"h": F.silu(gate) * up}


def router(x, s):
    z, k, G = x["logits"], int(s["num_experts_per_tok"]), int(s["n_group"])
    scores = z.softmax(-1) if s["scoring"] else z.sigmoid()
    choice = scores + x["bias"] if "bias" in x else scores
    if s["groups"]:
        groups = choice.view(len(z), G, -1)
        best = groups.topk(2, -1).values.sum(-1) if s["groups"] == 1 else groups.amax(-1)
        kept = torch.zeros_like(best).scatter_(1, best.topk(int(s["topk_group"])).indices, 1)
        choice = groups.masked_fill(kept[..., None] == 0, s["dropped"]).flatten(1)
    experts = choice.topk(k).indices.sort(-1).values
    weights = scores.gather(1, experts)
    if s["norm_topk_prob"]:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return {"experts": experts.int(), "weights": weights * s["routed_scaling_factor"]}


def experts(x, s):
    y = torch.zeros(x["x"].shape, dtype=torch.float32)
    for e in x["chosen"].unique().tolist():
        rows, slot = (x["chosen"] == e).nonzero(as_tuple=True)
        gate, up = F.linear(x["x"][rows].float(), x["gate_up"][e].float()).chunk(2, -1)
        h = (F.silu(gate) * up).to(x["x"].dtype).float()
        y[rows] += x["weights"][rows, slot, None] * F.linear(h, x["down"][e].float())
    return {"y": y}


def keys_of(x):
    """Numbers (S, D) and a scale each, of keys that may be FP8 rows."""
    k = x["k"]
    if k.dtype != torch.uint8:
        return k.float(), 1.0
    D = k.shape[1] - 4
    return seen_as(torch.float8_e4m3fn, k[:, :D]).float(), seen_as(torch.float32, k[:, D:])[:, 0]


def visible(x, S):
    s = torch.arange(S)[None]
    return (x["begin"][:, None] <= s) & (s < x["end"][:, None])


def indexer_scores(x, s):
    k, scale = keys_of(x)
    dots = torch.einsum("thd,sd->ths", x["q"].float(), k)
    if s["relu"]:
        dots = dots.relu()
    scores = torch.einsum("ths,th->ts", dots, x["w"]) * scale
    return {"scores": scores.masked_fill(~visible(x, len(k)), -torch.inf)}


def selected(scores, K):
    """torch.topk promises nothing of ties: the rule is the judge's, that the lower index wins."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True)
    chosen = order.indices.masked_fill(order.values == -torch.inf, 2**31 - 1)[:, :K]
    chosen = F.pad(chosen, (0, K - chosen.shape[1]), value=2**31 - 1).sort(-1).values
    return chosen.masked_fill(chosen == 2**31 - 1, -1).int()


def topk_select(x, s):
    return {"chosen": selected(x["scores"], int(s["topk"]))}


def indexer_topk(x, s):
    return {"chosen": selected(indexer_scores(x, s)["scores"], int(s["topk"]))}


def latents(x, R):
    """Rows (S, R+P) as numbers, which may be stored as FP8 rows."""
    kv, width = x["kv"], x["q"].shape[2]
    if kv.dtype != torch.uint8:
        return kv.float()
    runs = (R + RUN - 1) // RUN
    values = seen_as(torch.float8_e4m3fn, kv[:, :R])
    scales = seen_as(torch.float32, kv[:, R:R + 4 * runs])
    rotated = seen_as(torch.bfloat16, kv[:, R + 4 * runs:])
    assert rotated.shape[1] == width - R
    return torch.cat((scaled(values, scales), rotated.float()), -1)


def attention(x, s, kv, mask):
    """q (T,N,R+P) over kv (T or 1, K, R+P), where mask (T, K) holds."""
    R = int(s["R"])
    scores = torch.einsum("tnc,tkc->tnk", x["q"].float(), kv.expand(len(x["q"]), -1, -1))
    scores = (scores * s["scale"]).masked_fill(~mask[:, None], -torch.inf)
    lse = scores.logsumexp(-1)
    p = torch.where(mask[:, None], scores.softmax(-1), 0.0)
    return {"out": torch.einsum("tnk,tkr->tnr", p, kv.expand(len(p), -1, -1)[..., :R]), "lse": lse}


def mla_sparse(x, s):
    chosen, kv = x["chosen"].long(), latents(x, int(s["R"]))
    kv = torch.cat((kv, kv.new_zeros(1, kv.shape[1])))  # -1: the last row
    return attention(x, s, kv[chosen], chosen >= 0)


def mla_dense(x, s):
    mask = visible(x, len(x["kv"]))
    kv = latents(x, int(s["R"])).masked_fill(~mask.any(0)[:, None], 0.0)
    return attention(x, s, kv[None], mask)


TORCH = {f.__name__: f for f in (
    embed, rmsnorm, layernorm, rope, hadamard_e4m3, latent_e4m3, linear, swiglu, router, experts,
    indexer_scores, topk_select, indexer_topk, mla_sparse, mla_dense)}


class Absent(Exception):
    """A package, or the file of a kernel, is not here: one sentence."""


def module(name, is_file=False):
    """A package, or a file of the directories that --source names."""
    if is_file and not any(pathlib.Path(place, f"{name}.py").is_file() for place in sys.path):
        raise Absent(f"expected {name}.py, which is no package: name its directory with --source")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        raise Absent(f"the package {e.name} is not installed") from None
    except Exception as e:  # made for another version of what it imports, or for a machine with a GPU
        raise Absent(f"{name} cannot be imported: {said(e)}") from None


def said(error):
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def flashmla(x, s):
    """FlashMLA's sparse prefill of bf16, or its sparse decoding over a paged FP8 cache."""
    flash_mla = module("flash_mla")
    prefill = getattr(flash_mla, "flash_mla_sparse_fwd", None)
    if prefill is None or "attn_sink" not in inspect.signature(prefill).parameters:
        raise Absent("expected FlashMLA of 2026-01-16 (082094b) or later: before, its lse was in base 2")
    if "kv" in x:
        out, _, lse = prefill(x["q"], x["kv"], x["indices"], s["scale"])
        return {"out": out, "lse": lse}
    plan, _ = flash_mla.get_mla_metadata()
    out, lse = flash_mla.flash_mla_with_kvcache(
        x["q"], x["k_cache"], None, None, 512, plan, softmax_scale=s["scale"], is_fp8_kvcache=True,
        indices=x["indices"])
    return {"out": out, "lse": lse}


def tilelang(x, s):
    """TileLang's sparse MLA, to which row i of q has position i: nothing is chosen by rows before ours."""
    start, rows = int(x["q_start_index_s"]), x["q"].shape[1]
    before = (0, 0, 0, 0, start, 0)
    out, lse = module("sparse_mla_fwd", is_file=True).sparse_mla_fwd_interface(
        F.pad(x["q"], before), x["kv"], F.pad(x["indices"], before, value=start + rows), s["scale"])
    return {"out": out[:, start:], "lse": lse[:, start:]}


def tilelang_pipelined(x, s):
    """The same, warp-specialised, which is told the position of row 0."""
    out, lse = module("sparse_mla_fwd_pipelined", is_file=True).sparse_mla_fwd_interface(
        x["q"], x["kv"], x["indices"], int(x["q_start_index_s"]), 1, s["scale"])
    return {"out": out, "lse": lse}


def deepgemm(x, s):
    """DeepGEMM's index scores over contiguous keys."""
    return {"logits": module("deep_gemm").fp8_mqa_logits(
        x["q"], (x["k"], x["k_scale"]), x["weights"], x["k_start"], x["k_end"])}


def deepgemm_paged(x, s):
    """Over pages: every query is a sequence, and sees all that is before its end."""
    deep_gemm = module("deep_gemm")
    if [int(n) for n in re.findall(r"\d+", deep_gemm.__version__)[:2]] < [2, 2]:
        raise Absent(f"expected deep_gemm 2.2 or later, but this is {deep_gemm.__version__}")
    if x["k_start"].any() or not x["k_end"].all():
        return None  # a length of 0 was unsafe in some of its versions
    S, lengths = len(x["k"]), x["k_end"][:, None]  # (sequences, tokens of each)
    plan = deep_gemm.get_paged_mqa_logits_metadata(lengths, 64, deep_gemm.get_num_sms())
    logits = deep_gemm.fp8_paged_mqa_logits(
        x["q"][:, None], x["kv_cache"], x["weights"], lengths, x["block_table"], plan, S)
    return {"logits": logits[:, :S]}


def tilelang_index(x, s):
    """TileLang's index scores, which are called as DeepGEMM's."""
    return {"logits": module("fp8_lighting_indexer", is_file=True).mqa_attn_return_logits_interface(
        x["q"], x["k"], x["k_scale"], x["weights"], x["k_start"], x["k_end"])}


def deepseek_index(x, s):
    """The index scores of DeepSeek's own model: of all keys, for a batch."""
    return {"logits": module("kernel", is_file=True).fp8_index(
        x["q"][None], x["weights"][None], x["k"][None], x["k_scale"][None])[0]}


PEERS = {  # what computes an op, and the layout of its cases
    "torch": (None, TORCH),
    "flashmla": ("flashmla", {"mla_sparse": flashmla}),
    "tilelang": ("tilelang", {"mla_sparse": tilelang}),
    "tilelang-pipelined": ("tilelang", {"mla_sparse": tilelang_pipelined}),
    "deepgemm": ("deepgemm", {"indexer_scores": deepgemm}),
    "deepgemm-paged": ("deepgemm", {"indexer_scores": deepgemm_paged}),
    "tilelang-index": ("deepgemm", {"indexer_scores": tilelang_index}),
    "deepseek-index": ("deepgemm", {"indexer_scores": deepseek_index})}


def compute(case, kernel, args):
    """Writes the outputs of one case. False: the kernel does not take it."""
    with safe_open(args.cases / case["file"], "pt", device=args.device) as file:
        inputs = {name[3:]: file.get_tensor(name) for name in file.keys() if name.startswith("in.")}
    outputs = kernel(inputs, {k: float(v) for k, v in case["scalars"].items()})
    if outputs is None:
        return False
    save_file({k: v.contiguous().cpu() for k, v in outputs.items()}, args.out / case["file"])
    return True


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=pathlib.Path, help="what `dsa-verify ops --dump` wrote")
    parser.add_argument("out", type=pathlib.Path, help="where the outputs go")
    parser.add_argument("--peer", choices=PEERS, default="torch")
    parser.add_argument("--source", type=pathlib.Path, action="append", default=[], metavar="DIR",
                        help="directory of kernels that are no packages (may be given again)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    sys.path[:0] = map(str, args.source)
    torch.set_default_device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    layout, kernels = PEERS[args.peer]
    index = json.loads((args.cases / "index.json").read_text())
    if index.get("layout") != layout:
        parser.error(f"{args.cases} has the layout {index.get('layout')}, expected {layout}: dump it again"
                     + (f" with --layout {layout}" if layout else " without --layout"))
    written, errors = 0, []
    for case in index["cases"]:
        try:
            written += case["op"] in kernels and compute(case, kernels[case["op"]], args)
        except Absent as e:
            print(f"{args.peer}: {e}")
            return 3
        except Exception as e:
            errors.append(f"{case['case']}: {said(e)}")
    print(f"{written} cases computed, {len(index['cases']) - written} left out: {args.out}")
    if errors:
        print(f"{args.peer} raised an error on {len(errors)} cases, the first: {errors[0]}")
    return 1 if errors else 0 if written else 3


if __name__ == "__main__":
    sys.exit(main())
