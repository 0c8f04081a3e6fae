#!/usr/bin/env bash
# experiments/diagnose_golden.sh DIR [SET...] — diagnoses every twin and every correct file under DIR.
#
# DIR is laid out as for measure_golden.sh; provenance.json tells the defect of each twin. Prints a
# line a file: model, file, precision, conclusion, the defects named, the defect expected,
# what remains of the largest KL, seconds, why; and at the end how many twins were not named by their
# number and how many correct files were called broken, which is also the exit status.
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

# diagnose MODEL LABEL PRECISION FILE EXPECTED [ARGUMENTS...]   EXPECTED: a number, or "none"
diagnose() {
  local model=$1 label=$2 precision=$3 file=$4 expected=$5; shift 5
  [[ "$label" =~ $FILES ]] || return 0
  local json="$kept/$model.$label.json"
  "$VERIFY" diagnose "$dir/$model/checkpoint" "$file" --precision "$precision" "$@" \
    --runs "$RUNS" --json "$json" > "$json.txt" 2>&1
  if [ $? = 2 ]; then
    printf '! %-8s %-30s %-9s error 2: %s\n' "$model" "$label" "$precision" "$(tail -n 1 "$json.txt")"
    wrong=$((wrong + 1))
    return
  fi
  python3 - "$json" "$model" "$label" "$precision" "$expected" <<'PY' || wrong=$((wrong + 1))
import json, sys
path, model, label, precision, expected = sys.argv[1:]
with open(path) as file:
    report = json.load(file)
first = report["ranking"][0] if report["ranking"] else {}
named = "+".join(map(str, report["defects"])) or "-"
ok = named == expected if expected != "none" else report["conclusion"] != "defect"
after = first.get("kl_max_after", report["kl_max_before"])
print(f'{" " if ok else "!"} {model:8} {label:30} {precision:9} {report["conclusion"]:8} {named:>7} {expected:>5} '
      f'{after or 0:9.3g} {report["receipt"]["seconds"]:6.1f}  {report["why"]}', flush=True)
sys.exit(not ok)
PY
}

printf '  %-8s %-30s %-9s %-8s %7s %5s %9s %6s  %s\n' \
  model file precision concl. defects is "KL after" seconds why
for folder in "$dir"/*/; do
  model=$(basename "$folder")
  [ $# = 0 ] || [[ " $* " == *" $model "* ]] || continue
  golden="${folder}logits.safetensors"
  [ -f "$golden" ] || continue
  for pair in fp64:fp64 fp32:hf-fp32 bf16:hf-bf16; do
    diagnose "$model" "logits.${pair%%:*}" "${pair##*:}" "$golden" none --dtype "${pair%%:*}"
  done
  for file in "$folder"left-padded.safetensors "$folder"ragged.safetensors "$folder"trace.*.safetensors; do
    [ -f "$file" ] && diagnose "$model" "$(basename "$file" .safetensors)" fp64 "$file" none
  done
  for pair in f32:hf-fp32 f16cache:llama-f16 bf16:hf-bf16; do
    file="${folder}llama.cpp-${pair%%:*}.safetensors"
    [ -f "$file" ] && diagnose "$model" "llama.cpp-${pair%%:*}" "${pair##*:}" "$file" none
  done
  for file in "$folder"twin-*.safetensors; do
    [ -f "$file" ] || continue
    label=$(basename "$file" .safetensors)
    name=${label#twin-}
    expected=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["twins"][sys.argv[2]]["defect"])' \
      "${folder}provenance.json" "${name%.trace}")
    diagnose "$model" "$label" hf-fp32 "$file" "$expected"
  done
done
echo "$wrong twins are not named or correct files are called broken"
[ $wrong = 0 ]
