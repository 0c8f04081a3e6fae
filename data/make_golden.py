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
  gradients.STAGE[.SEMANTICS].safetensors  losses with gradients, by torch's autograd
  backward-trace.fp64.safetensors          gradients of the language-model loss in modules' outputs
  trajectory.STAGE.safetensors             steps of AdamW: losses, norms, rates, final parameters
  provenance.json            versions, settings, ties, noise of fp32 and bf16, sha256 of each file

A file is written under a temporary name and renamed, so what carries its final name is complete.
Exit status: 0 done, 1 the golden cannot be made (the reason is printed), 2 wrong usage.
"""
import argparse
import json
import os
import platform
import re
import shlex
import shutil
import sys

import torch
import transformers
from safetensors import SafetensorError

from golden_files import (Failure, choose_batches, choose_tokens, pad, sha256, widen, write_json, write_jsonl,
                          write_tensors, write_text)
from huggingface import DTYPES, Runner
from kl_semantics import PRESETS, read
from recipe import read_recipe
from tiny_models import ALIASES, FAMILIES, SAMPLES, STREAMED_NAMES, make_checkpoint
from training_golden import STAGES, backward_trace, gradients, trajectory


def noise(exact, other, mask):
    """Distance of logits from the fp64 ones over the real positions; KL(fp64 || other)."""
    p, q = (x.double() if mask is None else x.double()[mask.bool()] for x in (exact, other))
    lp, lq = p.log_softmax(-1), q.log_softmax(-1)
    kl = (lp.exp() * (lp - lq)).sum(-1).clamp(min=0)
    return dict(max_abs=float((p - q).abs().max()), kl_mean=float(kl.mean()), kl_max=float(kl.max()))


def make_gradients(args, run, batches, save):
    """Losses and gradients of `batches`, (name, tokens, mask) each; returns the smallest distance of a choice."""
    gaps = {}
    for name, tokens, mask in batches:
        for semantics in [PRESETS["paper"], *(read(s) for s in args.semantics)]:
            for stage in args.gradients if name is None else ["sparse"]:
                file = f"gradients.{name or stage}" + (f".{semantics.name}" if semantics.name != "paper" else "")
                tensors, gaps[file] = gradients(run, tokens, mask, stage, semantics)
                save(file + ".safetensors", tensors)
    return {file: gap for file, gap in gaps.items() if gap < torch.inf}


def make_trajectory(args, run, vocab, save):
    stage = "sparse" if any(n.endswith(".indexer") for n, _ in run.model.named_modules()) else "pretrain"
    recipe = read_recipe(args.recipe, args.trajectory, stage)
    tensors = trajectory(run, recipe, choose_batches(args, vocab))
    save(f"trajectory.{recipe.stage}.safetensors", tensors, {"recipe": json.dumps(recipe.given)})


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

    def save(name, tensors, metadata=None):
        write_tensors(os.path.join(args.out, name), tensors, metadata)
        files[name] = sha256(os.path.join(args.out, name))

    dtypes = [d for d in DTYPES if d in args.dtypes + args.trace]
    if args.left_pad or args.ragged or args.gradients or args.backward_trace or args.trajectory:
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
        if dtype == "fp64" and args.gradients:
            batches = [(None, tokens, mask)] + ([("padded", cut, real)] if args.ragged else [])
            facts["smallest_index_gap"] = make_gradients(args, run, batches, save)
        if dtype == "fp64" and args.backward_trace:
            save("backward-trace.fp64.safetensors", backward_trace(run, torch.tensor(rows[:1]), args.trace_names))
        if dtype == "fp64" and args.trajectory:  # the last, because it trains the model
            make_trajectory(args, run, vocab, save)
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


def stage_list(text):
    names = text.split(",")
    if any(n not in STAGES for n in names):
        raise argparse.ArgumentTypeError(f"expected a list of {', '.join(STAGES)}, got {text!r}")
    return names


def positive(text):
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"expected a number of steps, got {text!r}")
    return int(text)


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

    g = golden.add_argument_group("training, in fp64")
    g.add_argument("--gradients", type=stage_list, nargs="?", const=["sparse"], default=[], metavar="LIST",
                   help="also losses and gradients, of sparse (default), dense (every visible key is chosen) and "
                   "warmup (the indexer's loss over every visible key, attention sparse)")
    g.add_argument("--semantics", action="append", default=[], metavar="NAME", help="also the indexer's loss as read "
                   f"by {', '.join(n for n in PRESETS if n != 'paper')}, or by a JSON file of switches; may be given "
                   "again")
    g.add_argument("--backward-trace", action="store_true", help="also the gradient of the first sequence's "
                   "language-model loss in every module's output")
    g.add_argument("--trajectory", type=positive, default=0, metavar="N", help="also N steps of AdamW")
    g.add_argument("--recipe", metavar="FILE", help="how they are trained, as JSON (docs/judging_training.md)")
    g.add_argument("--batches", metavar="FILE", help="their batches: a .safetensors with `tokens` (N, B, S); default: "
                   "drawn as --length, --batch and --seed say")

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
        if args.stream and (args.left_pad or args.ragged or args.jsonl or args.gradients or args.backward_trace
                            or args.trajectory):
            parser.error("--stream makes no --left-pad, --ragged, --jsonl, --gradients, --backward-trace or --trajectory")
        if args.semantics and not args.gradients or (args.recipe or args.batches) and not args.trajectory:
            parser.error("--semantics needs --gradients; --recipe and --batches need --trajectory")
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
