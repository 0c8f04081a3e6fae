#!/usr/bin/env bash
# experiments/rates/diagnose_golden.sh DIR [SET...] — diagnoses every twin and every correct file under DIR.
#
# What DIR holds, and the variables that are read: golden_files.sh; provenance.json tells the defect of each twin. Prints a
# line a file: model, file, precision, conclusion, the defects named, the defect expected,
# what remains of the largest KL, seconds, why; and at the end how many twins were not named by their
# number and how many correct files were called broken, which is also the exit status.
. "$(dirname "$0")/golden_files.sh"

# diagnose MODEL LABEL PRECISION FILE EXPECTED [ARGUMENTS...]   EXPECTED: a number, or "none"
diagnose() {
  local model=$1 label=$2 precision=$3 file=$4 expected=$5; shift 5
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

visit() {
  local kind=$1 model=$2 label=$3 precision=$4 file=$5 name
  case $kind in
    column) diagnose "$model" "$label" "$precision" "$file" none --dtype "${label#logits.}" ;;
    twin)
      name=${label#twin-}
      diagnose "$model" "$label" "$precision" "$file" "$(python3 -c \
        'import json, sys; print(json.load(open(sys.argv[1]))["twins"][sys.argv[2]]["defect"])' \
        "$dir/$model/provenance.json" "${name%.trace}")" ;;
    *) diagnose "$model" "$label" "$precision" "$file" none ;;
  esac
}

printf '  %-8s %-30s %-9s %-8s %7s %5s %9s %6s  %s\n' \
  model file precision concl. defects is "KL after" seconds why
for_each_file "$@"
echo "$wrong twins are not named or correct files are called broken"
[ $wrong = 0 ]
