# A checkpoint that is larger than one machine's patience, judged by spans of its layers, one job a span. Snakemake 7
# and 8 or newer both read this file:
#
#   snakemake -s experiments/snakemake/verify.smk --profile experiments/snakemake/profiles/slurm \
#     --config checkpoint=DIR golden=TRACE out=out/verify span=8
#
# golden: with a trace of every layer (docs/large-checkpoints.md). span: layers of a job. candidate: a trace to be judged
# by the golden. program: where dsa-verify lies; arguments: more of its flags ("--runs 1"); minutes, mem_mb, cores: of a job.
import json
import shlex
from pathlib import Path

PROGRAM = config.get("program", "build/bin/dsa-verify")
OUT = config["out"]
SPAN = int(config.get("span", 8))
LAYERS = json.loads((Path(config["checkpoint"]) / "config.json").read_text())["num_hidden_layers"]
SPANS = [f"{a}-{min(a + SPAN, LAYERS)}" for a in range(0, LAYERS, SPAN)]
CANDIDATE = ["--candidate", config["candidate"]] if config.get("candidate") else []
COMMAND = shlex.join(
    [PROGRAM, "golden", config["checkpoint"], config["golden"], *CANDIDATE]
    + shlex.split(config.get("arguments", "--runs 1"))
)


localrules: all, merge


rule all:
    input:
        f"{OUT}/verdict.json",


# A verdict is no failure of the job: status 1 says that the layers are wrong, 3 that nothing was shown.
rule span:
    output:
        f"{OUT}/spans/{{a}}-{{b}}.json",
    wildcard_constraints:
        a="[0-9]+",
        b="[0-9]+",
    threads: int(config.get("cores", 8))
    resources:
        mem_mb=int(config.get("mem_mb", 16000)),
        runtime=int(config.get("minutes", 240)),
    shell:
        f"OMP_NUM_THREADS={{threads}} {COMMAND} --layers {{wildcards.a}}:{{wildcards.b}} --json {{output}}"
        " || test $? -eq 1 -o $? -eq 3"


rule merge:
    input:
        expand(f"{OUT}/spans/{{span}}.json", span=SPANS),
    output:
        f"{OUT}/verdict.json",
    shell:
        f"{shlex.quote(PROGRAM)} merge {{input}} --json {{output}} || test $? -eq 1 -o $? -eq 3"
