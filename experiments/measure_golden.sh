#!/usr/bin/env bash
# experiments/measure_golden.sh DIR [SET...] — judges every golden, candidate and twin under DIR.
#
# DIR holds one folder a model: checkpoint/, logits.safetensors with columns fp64, fp32 and bf16, and
# where they exist left-padded, ragged, trace.*, llama.cpp-{f32,f16cache,bf16} and twin-* files.
# Prints a line a file: model, file, precision, verdict, exit status, KL max, undecided and
# explained rows, seconds, why; and at the end how many correct files fail and how many twins
# pass, which is also the exit status.
#   VERIFY  the binary (build/bin/dsa-verify)     RUNS  perturbed runs (8)
#   FILES   a regular expression: only these      OUT   keeps the JSON reports there
set -u -o pipefail
VERIFY=${VERIFY:-build/bin/dsa-verify}
RUNS=${RUNS:-8}
FILES=${FILES:-.}
[ $# -ge 1 ] && [ -d "$1" ] || { echo "usage: $0 DIR [SET...]: DIR holds one folder a model" >&2; exit 2; }
[ -x "$VERIFY" ] || { echo "$VERIFY is not there; build it (make build) or set VERIFY" >&2; exit 2; }
dir=$1; shift
kept=${OUT:-$(mktemp -d)}
mkdir -p "$kept"
[ -n "${OUT:-}" ] || trap 'rm -rf "$kept"' EXIT
wrong=0

# judge KIND MODEL LABEL PRECISION ARGUMENTS...   KIND: right (must not fail) or twin (must fail)
judge() {
  local kind=$1 model=$2 label=$3 precision=$4; shift 4
  [[ "$label" =~ $FILES ]] || return 0
  local json="$kept/$model.$label.json" status
  "$VERIFY" golden "$dir/$model/checkpoint" "$@" --runs "$RUNS" --json "$json" > "$json.txt" 2>&1
  status=$?
  if [ $status = 2 ]; then
    printf '%-8s %-30s %-12s error 2: %s\n' "$model" "$label" "$precision" "$(tail -n 1 "$json.txt")"
    wrong=$((wrong + 1))
    return
  fi
  if { [ $kind = right ] && [ $status = 1 ]; } || { [ $kind = twin ] && [ $status = 0 ]; }; then
    wrong=$((wrong + 1))
    printf '! '
  fi
  python3 - "$json" "$model" "$label" "$precision" $status <<'PY'
import json, sys
path, model, label, precision, status = sys.argv[1:]
with open(path) as file:
    report = json.load(file)
logits = report.get("logits")
kl = f'{logits["all"]["kl_max"]:.3g}' if logits else "-"
undecided, explained = (logits["undecided"], logits["explained"]) if logits else ("-", "-")
print(f'{model:8} {label:30} {precision:12} {report["verdict"]:12} {status}  {kl:>9}  '
      f'{undecided:>4} {explained:>4}  {report["receipt"]["seconds"]:6.1f}  {report["why"]}')
PY
}

printf '%-8s %-30s %-12s %-12s %s  %9s  %4s %4s  %6s  %s\n' \
  model file precision verdict exit 'KL max' und. expl seconds why
for folder in "$dir"/*/; do
  model=$(basename "$folder")
  [ $# = 0 ] || [[ " $* " == *" $model "* ]] || continue
  golden="$folder/logits.safetensors"
  [ -f "$golden" ] || continue
  for dtype in fp64 fp32 bf16; do
    judge right "$model" "logits.$dtype" $dtype "$golden" --dtype $dtype
  done
  for file in "$folder"left-padded.safetensors "$folder"ragged.safetensors "$folder"trace.*.safetensors; do
    [ -f "$file" ] && judge right "$model" "$(basename "$file" .safetensors)" fp64 "$file"
  done
  for pair in f32:hf-fp32 f16cache:llama-f16 bf16:hf-bf16; do
    file="${folder}llama.cpp-${pair%%:*}.safetensors"
    [ -f "$file" ] && judge right "$model" "llama.cpp-${pair%%:*}" "${pair##*:}" \
      "$golden" --candidate "$file" --precision "${pair##*:}"
  done
  for file in "$folder"twin-*.safetensors; do
    [ -f "$file" ] || continue
    against=$golden
    [[ "$file" == *.trace.safetensors ]] && against="${folder}trace.fp64.safetensors"
    judge twin "$model" "$(basename "$file" .safetensors)" hf-fp32 "$against" --candidate "$file" --precision hf-fp32
  done
done
echo "$wrong correct files fail or twins pass"
[ $wrong = 0 ]
