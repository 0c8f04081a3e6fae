#!/usr/bin/env bash
# experiments/rates/measure_golden.sh DIR [SET...] — judges every golden, candidate and twin under DIR.
#
# What DIR holds, and the variables that are read: golden_files.sh.
# Prints a line a file: model, file, precision, verdict, exit status, KL max, undecided and
# explained rows, seconds, why; and at the end how many correct files fail and how many twins
# pass, which is also the exit status.
. "$(dirname "$0")/golden_files.sh"

# judge EXPECTED MODEL LABEL PRECISION ARGUMENTS...   EXPECTED: right (must not fail) or twin (must fail)
judge() {
  local expected=$1 model=$2 label=$3 precision=$4; shift 4
  local json="$kept/$model.$label.json" status
  "$VERIFY" golden "$dir/$model/checkpoint" "$@" --runs "$RUNS" --json "$json" > "$json.txt" 2>&1
  status=$?
  if [ $status = 2 ]; then
    printf '%-8s %-30s %-12s error 2: %s\n' "$model" "$label" "$precision" "$(tail -n 1 "$json.txt")"
    wrong=$((wrong + 1))
    return
  fi
  if { [ $expected = right ] && [ $status = 1 ]; } || { [ $expected = twin ] && [ $status = 0 ]; }; then
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

visit() {
  local kind=$1 model=$2 label=$3 precision=$4 file=$5
  local folder="$dir/$model/"
  case $kind in
    column) judge right "$model" "$label" "${label#logits.}" "$file" --dtype "${label#logits.}" ;;
    file) judge right "$model" "$label" "$precision" "$file" ;;
    llama.cpp) judge right "$model" "$label" "$precision" \
      "${folder}logits.safetensors" --candidate "$file" --precision "$precision" ;;
    twin)
      local golden="${folder}logits.safetensors"
      [[ "$label" == *.trace ]] && golden="${folder}trace.fp64.safetensors"
      judge twin "$model" "$label" "$precision" "$golden" --candidate "$file" --precision "$precision" ;;
  esac
}

printf '%-8s %-30s %-12s %-12s %s  %9s  %4s %4s  %6s  %s\n' \
  model file precision verdict exit 'KL max' und. expl seconds why
for_each_file "$@"
echo "$wrong correct files fail or twins pass"
[ $wrong = 0 ]
