#!/usr/bin/env python3
"""Everything that needs an NVIDIA device, in one run of a few minutes: `make gpu`.

    gpu.py [--source DIR]                      build for the device at hand, then every step
    gpu.py --built BIN                         every step, with programs that were built elsewhere
    gpu.py --rehearse BIN --out DIR            every step, with the host in the device's place
    gpu.py --show RECEIPT ...                  the tables of receipts of one device; nothing runs

Steps: the kernel suite on the device; the bundled goldens by the cuda backend; benchmarks against the device's
own roof; torch beside them; a whole model's decoding; other people's kernels on the suite's cases;
compute-sanitizer on its small ones, once each. A step that fails stops none of the later ones. What is not installed is
`absent`, and says so. The receipt, OUT/gpu-DEVICE.json, is written anew after every step. Exit status: 0 no
step failed, 1 one did, 2 there is nothing to run on. docs/cuda.md tells more.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from machine import Missing, architecture, find_device, find_tool, find_toolkit, output_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERS = ROOT / "experiments/bench/peers"
PEERS_BY_LAYOUT = {"flashmla": ["flashmla"], "tilelang": ["tilelang", "tilelang-pipelined"],
                   "deepgemm": ["deepgemm", "deepgemm-paged", "tilelang-index", "deepseek-index"]}
SAMPLES = ("v32", "glm", "fp8", "v3")
SANITIZERS = ("memcheck", "racecheck", "initcheck")
PUBLISHED = pathlib.Path(__file__).with_name("published.json")
QUICK = ("suite", "golden", "benchmarks")
QUICK_FLOPS = 1e7  # of a case of the suite in a quick run
SANITIZER_SECONDS = 90
SANITIZER_ERROR = 86  # the exit status that compute-sanitizer is told to use for what it finds


class Absent(Exception):
    """Something that a step needs is not installed here: one sentence."""


class Failed(Exception):
    """A step did not do what it should: one sentence."""


class Run:
    """Where programs are, where results go, and how much time is left."""

    def __init__(self, arguments):
        self.programs = pathlib.Path(
            arguments.rehearse or arguments.built or ROOT / "build-gpu/bin").resolve()
        self.out, self.rehearse = pathlib.Path(arguments.out).resolve(), bool(arguments.rehearse)
        self.end, self.sources = time.monotonic() + arguments.seconds, arguments.source
        self.quick = arguments.quick
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="dsa-gpu-"))

    def program(self, name):
        return str(self.programs / name)

    def call(self, command, seconds, keep=None):
        """(exit status, last line of what it said). Failed: it takes longer, or there is no such program."""
        seconds = min(seconds, self.end - time.monotonic())
        if seconds <= 0:
            raise Failed("no time was left for it")
        try:
            process = subprocess.Popen(
                [str(word) for word in command], cwd=ROOT, text=True, errors="replace",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as e:
            raise Failed(f"cannot run {command[0]}: {e.strerror}") from None
        with process:
            try:
                output, _ = process.communicate(timeout=seconds)
            except BaseException as e:  # with all that it started: a sanitizer's program holds the device
                os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(e, subprocess.TimeoutExpired):
                    raise
                raise Failed(f"{pathlib.Path(command[0]).name} took more than {seconds:.0f} s") from None
        if keep:
            (self.out / keep).write_text(output)
        lines = [line for line in output.splitlines() if line.strip()]
        return process.returncode, lines[-1].strip() if lines else ""


def read_json(path, said):
    """A document that a program was to write; `said`: its last words, in case it did not."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        raise Failed(said or f"{path.name} was not written") from None


def write_json(path, document):
    """Under a temporary name, then renamed: a run that is cut off leaves the last whole receipt."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(partial, path)


# Steps: each returns what is kept of it, with `why`, a line for the table.

def build(run, device, nvcc):
    begin = time.monotonic()
    directory = run.programs.parent
    missing, said = run.call(["make", "packages"], 300)  # a machine that cannot install may have them otherwise
    packages = f"; packages.txt could not be installed: {said}" if missing else ""
    for command in (
            ["cmake", "-S", ROOT, "-B", directory, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DDSA_TESTS=OFF",
             "-DDSA_CUDA=ON", f"-DDSA_NVCC={nvcc}",
             f"-DCMAKE_CUDA_ARCHITECTURES={architecture(device['compute_cap'])}"],
            ["cmake", "--build", directory, "-j", os.cpu_count(), "--target", "dsa-verify", "dsa-bench", "make_wide"]):
        status, said = run.call(command, 300, keep="gpu-build.log")
        if status:
            raise Failed(f"{command[0]} {command[1]}: {said} ({run.out / 'gpu-build.log'}){packages}")
    return {"why": f"{device['name']}, {time.monotonic() - begin:.0f} s"}


def suite_command(run, document, *more):
    """A rehearsal judges one op: to pose the cases of all takes minutes on a small machine."""
    choice = ["--ran", "host", "--op", "rmsnorm"] if run.rehearse else ["--ran", "device"]
    return [run.program("dsa-verify"), "ops", "--backend", "cuda", *choice, "--json", document, *more]


def suite(run):
    """Every rung by every case; every case 20 times over, to the same bits."""
    path = run.scratch / "ops.json"
    status, said = run.call(suite_command(run, path, *(["--max-flops", QUICK_FLOPS] if run.quick else [])), 120)
    document = read_json(path, said)
    rows, place = document["ops"], "host" if run.rehearse else "device"
    wrong = [row for row in rows if row["verdict"] == "fail"]
    ran = [row for row in rows if row["ran"] == place and row["verdict"] in ("pass", "fail")]
    result = {"rows": rows, "receipt": document["receipt"]}
    if wrong:
        name = "{op} {dtype} {rung}".format(**wrong[0])
        raise Failed(f"{len(wrong)} of {len(ran)} kernels are wrong, the first: {name}: {wrong[0]['why']}", result)
    if status or not ran:
        raise Failed(f"no kernel was run on the {place}: {document['why']}", result)
    worst = max(number(row["worst_over_allowed"]) for row in ran)
    return {**result, "why": f"{len(ran)} kernels on the {place}, {sum(row['cases'] for row in ran)} cases, "
                             f"worst error {worst:.2g} of what is allowed"}


def number(x):
    return float(x if x is not None else "nan")


def sanitizers(run):
    """Small cases under each tool, side by side. A case is run once: a tool says the same of every run."""
    tool = find_tool("compute-sanitizer")
    if not tool:
        raise Absent("compute-sanitizer is not installed")

    def one(name):
        command = suite_command(run, run.scratch / f"{name}.json", "--max-flops", 1e5, "--runs", 1)
        log = f"gpu-{name}.log"
        status, said = run.call(
            [tool, "--tool", name, "--error-exitcode", SANITIZER_ERROR, *command], SANITIZER_SECONDS, keep=log)
        return status, f"{name} finds something: {said} ({run.out / log})" if status == SANITIZER_ERROR else said

    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = dict(zip(SANITIZERS, pool.map(one, SANITIZERS)))
    result = {"tools": {name: {"status": status, "said": said} for name, (status, said) in results.items()}}
    for status, said in results.values():
        if status:
            raise Failed(said, result)
    return {**result, "why": ", ".join(SANITIZERS) + " find nothing"}


def golden(run):
    """The bundled samples by the whole model on the device."""
    backend = "cuda-host" if run.rehearse else "cuda"
    verdicts = {}
    for sample in SAMPLES[:1] if run.rehearse else SAMPLES:
        path, directory = run.scratch / f"{sample}.json", ROOT / "data/samples" / sample
        status, said = run.call([run.program("dsa-verify"), "golden", directory / "checkpoint",
                                 directory / "logits.safetensors", "--backend", backend, "--format", "fp32",
                                 "--json", path], 60)
        if status == 2 and f'has no backend "{backend}"' in said:
            raise Absent(f"this build has no backend {backend}")
        document = read_json(path, said)
        verdicts[sample] = {"verdict": document["verdict"], "why": document["why"], "exit": status}
    bad = [f"{name}: {v['verdict']}, {v['why']}" for name, v in verdicts.items() if v["exit"]]
    if bad:
        raise Failed(bad[0], {"samples": verdicts})
    return {"samples": verdicts, "why": ", ".join(verdicts) + f" pass by {backend}"}


def peers(run):
    """Other people's kernels on our cases, in their layouts: who is installed is judged."""
    judged, absent = {}, {}
    for layout, names in PEERS_BY_LAYOUT.items():
        ops, cases = [run.program("dsa-verify"), "ops", "--layout", layout], run.scratch / f"{layout}-cases"
        status, said = run.call([*ops, "--dump", cases], 60)
        if status:
            raise Failed(said)
        for name in names:
            try:
                judged[name] = judged_peer(run, name, ops, cases)
            except (Absent, Failed) as e:  # theirs: no failure of ours
                absent[name] = str(e)
    if not judged:
        raise Absent("; ".join(absent.values()))
    return {"peers": judged, "absent": absent, "why": ", ".join(f"{n} {x['verdict']}" for n, x in judged.items())}


def judged_peer(run, name, ops, cases):
    out, path = run.scratch / f"{name}-out", run.scratch / f"{name}.json"
    status, said = run.call([sys.executable, PEERS / "kernels_torch.py", cases, out, "--peer", name,
                             "--device", "cpu" if run.rehearse else "cuda",
                             *(f"--source={directory}" for directory in run.sources)], 200)  # compiling takes long
    if status and not any(out.glob("*.safetensors")):
        raise Absent(said)
    status, judge_said = run.call([*ops, "--against", out, "--json", path], 60)
    rows = read_json(path, judge_said)["ops"]
    failed = [row for row in rows if row["verdict"] == "fail"]
    but_for = " but for the sums of Hopper's FP8 tensor cores" if all(row["advice"] for row in failed) else ""
    return {"verdict": "does not pass" + but_for if failed else "passes", "said": said, "rows": rows}


def benchmarks(run):
    path = run.scratch / "bench.json"
    status, said = run.call([run.program("dsa-bench"), "cuda", "--json", path,
                             *(["--on-host"] if run.rehearse else [])], 240, keep="gpu-bench.log")
    document = read_json(path, said)
    timed = [row for row in document["rows"] if not row["error"]]
    untimed = [row for row in document["rows"] if row["error"]]
    roof = "{gb_per_s:.0f} GB/s and {tflop_per_s:.0f} Tflop/s".format(**document["roof"])
    if status or untimed:
        first = "{op} {dtype} {rung} {shape}: {error}".format(**untimed[0]) if untimed else said
        raise Failed(f"{len(untimed)} of {len(document['rows'])} problems have no time, the first: {first}", document)
    return {**document, "why": f"{len(timed)} problems, against {roof} measured"}


def torch(run):
    """What torch alone makes of the problems of the benchmarks."""
    problems, path = run.scratch / "problems.json", run.scratch / "torch.json"
    status, said = run.call([run.program("dsa-bench"), "cuda", "--list", "--json", problems,
                             *(["--on-host"] if run.rehearse else [])], 10)
    if status:
        raise Failed(said)
    status, said = run.call([sys.executable, PEERS / "torch_on_device.py", problems, "--json", path,
                             "--device", "cpu" if run.rehearse else "cuda"], 150)
    if status == 3:
        raise Absent(said)
    document = read_json(path, said)
    if status:
        raise Failed(said, document)
    return {**document, "why": f"torch {document['torch']}, {len(document['rows'])} problems"}


def decode(run):
    """Prefill and decoding by the engine of the device: bench-mid, and a layer of V3.2's full width at 128K."""
    backend = "cuda-host" if run.rehearse else "cuda"
    usage = output_of([run.program("dsa-bench"), "model", "--help"])
    if "--backend" not in usage:
        raise Absent("dsa-bench model has no --backend in this build")
    models = {"bench-mid": (["--shape", "bench-mid"], ["--length", 8192, "--decode", 64]),
              "wide layer": (["--layers", 1, "--dense", 1, "--vocab", 8192],
                             ["--length", 131072, "--decode", 64, "--chunk", 2048, "--format", "fp8"])}
    if run.rehearse:
        models = {"sample v32": (None, ["--length", 32, "--decode", 2])}
    rows = {}
    for name, (shape, lengths) in models.items():
        checkpoint = run.scratch / name if shape else ROOT / "data/samples/v32/checkpoint"
        if shape:
            status, said = run.call([run.program("make_wide"), checkpoint, *shape], 60)
            if status:
                raise Failed(said, {"rows": rows})
        status, said = run.call([run.program("dsa-bench"), "model", checkpoint, "--backend", backend, *lengths], 120)
        if status == 2 and "no backend" in said:
            raise Absent(f"this build has no engine {backend}")
        if status:
            raise Failed(f"{name}: {said}", {"rows": rows})
        rows[name] = json.loads(said)
    return {"rows": rows, "why": "; ".join(
        f"{name} at {row['length']}: {row['prefill_tokens_per_s']:.0f} tokens/s of prefill, "
        f"{1e3 * row['decode_s_per_token']:.1f} ms a token decoded" for name, row in rows.items())}


STEPS = {"suite": suite, "golden": golden, "benchmarks": benchmarks, "torch": torch, "decode": decode,
         "peers": peers, "sanitizers": sanitizers}


def performed(step, *arguments):
    """The result of a step, whatever happens in it."""
    begin = time.monotonic()
    try:
        result = {"status": "pass", **step(*arguments)}
    except Absent as e:
        result = {"status": "absent", "why": str(e)}
    except Failed as e:
        result = {**(e.args[1] if len(e.args) > 1 else {}), "status": "fail", "why": e.args[0]}
    except Exception as e:  # a program wrote what this script does not know: later steps go on
        result = {"status": "fail", "why": f"{type(e).__name__}: {e}"}
    return {**result, "seconds": round(time.monotonic() - begin, 1)}


# What is printed.

def verdict_of(row, suite_rows):
    """What the suite says of an op in a dtype: a fast wrong answer is no result."""
    verdicts = {r["verdict"] for r in suite_rows if r["op"] == row["op"] and r["dtype"] == row["dtype"]}
    return "fail" if "fail" in verdicts else "pass" if "pass" in verdicts else "not judged"


def published(card):
    """Times of others' kernels that were measured on such a card in another run, by problem."""
    known = json.loads(PUBLISHED.read_text())
    return {(row["op"], row["dtype"], row["shape"]): row for row in known["rows"] if known["card"] == card}


def bench_table(steps, card):
    elsewhere = published(card)
    ours = [row for row in steps.get("benchmarks", {}).get("rows", []) if not row["error"]]
    theirs = {(row["op"], row["dtype"], row["shape"]): row["ms"] for row in steps.get("torch", {}).get("rows", [])}
    judged = steps.get("suite", {}).get("rows", [])
    lines = []
    for row in ours:
        peer = theirs.get((row["op"], row["dtype"], row["shape"]))
        verdict = verdict_of(row, judged)
        lines.append("{op:<16} {dtype:<5} {rung:<10} {shape:<44} {ms:>10.3f} ms {roof:>6.1f}% of the roof".format(
            roof=100 * row["of_roof"], **row)
            + (f", torch {peer:.3f} ms" if peer else "") + ("" if verdict == "pass" else f", {verdict}"))
        other = elsewhere.get((row["op"], row["dtype"], row["shape"]))
        if other and row["rung"] == "dispatch":
            lines.append("{:>78} {ms:>10.3f} ms, {kernel}: published kernel, same card, another run".format("", **other))
    return lines


def table(steps):
    return [f"{name:<12} {step['status']:<7} {step['seconds']:>6.1f} s  {step['why']}" for name, step in steps.items()]


def show(paths):
    """The tables of receipts that were made on one device."""
    try:
        receipts = [json.loads(path.read_text()) for path in paths]
        steps = {name: step for receipt in receipts for name, step in receipt["steps"].items()}
        return bench_table(steps, receipts[0]["device"]["name"]) + table(steps)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Missing(f"no receipts ({type(e).__name__}: {e}); give files that make gpu wrote") from e


def slug(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--built", metavar="BIN", help="programs of a build with CUDA: nothing is built here, and "
                          "no compiler is needed")
    place.add_argument("--rehearse", metavar="BIN", help="programs of a build; no device is needed or used")
    parser.add_argument("--out", default=ROOT / "experiments/results", help="where the receipt and logs go")
    place.add_argument("--show", metavar="RECEIPT", nargs="+", type=pathlib.Path, help="print receipts; nothing runs")
    parser.add_argument("--seconds", type=float, default=530, help="all of it takes no longer")
    parser.add_argument("--source", action="append", default=[], help="directory of peers that are no packages")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--only", choices=STEPS, action="append", help="a step (may be given again)")
    steps.add_argument("--only-sanitizers", dest="only", action="store_const", const=["sanitizers"], help="that step")
    steps.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, of small cases alone")
    arguments = parser.parse_args()
    try:
        if arguments.show:
            return print("\n".join(show(arguments.show)))
        if arguments.rehearse:
            device, (nvcc, toolkit) = {"name": "rehearsal", "driver_version": None}, (None, None)
        else:
            device, (nvcc, toolkit) = find_device(), (None, None) if arguments.built else find_toolkit()
    except Missing as e:
        print(f"gpu.py: {e}", file=sys.stderr)
        return 2
    pathlib.Path(arguments.out).mkdir(parents=True, exist_ok=True)
    run = Run(arguments)
    receipt = {"device": device, "toolkit": toolkit,
               "commit": output_of(["git", "-C", ROOT, "describe", "--always", "--dirty"]),
               "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "steps": {}}
    path = run.out / f"gpu-{slug(device['name'])}.json"
    steps = {} if run.rehearse or arguments.built else {"build": lambda r: build(r, device, nvcc)}
    wanted = QUICK if arguments.quick else arguments.only or STEPS
    steps.update({name: step for name, step in STEPS.items() if name in wanted})
    for name, step in steps.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        receipt["steps"][name] = performed(step, run)
        write_json(path, receipt)
        if name == "build" and receipt["steps"][name]["status"] == "fail":
            break
    shutil.rmtree(run.scratch, ignore_errors=True)
    print("\n".join(bench_table(receipt["steps"], device["name"]) + table(receipt["steps"]) + [f"receipt: {path}"]))
    return int(any(step["status"] == "fail" for step in receipt["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
