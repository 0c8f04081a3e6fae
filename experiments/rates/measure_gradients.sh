#!/usr/bin/env bash
# experiments/rates/measure_gradients.sh DIR [SET...] — judges every gradient, trajectory and twin of training under DIR.
#
# DIR holds one folder a model: checkpoint/, gradients.STAGE (sparse, dense, padded), and where they exist
#   gradients.STAGE.{fp32,bf16}   right, in that precision      gradients.STAGE.READING   right by another convention
#   gradients.twin-NAME           one known defect              trajectory.*[.fp32], trajectory.*.twin-NAME   the same of runs
# training.provenance.json tells the golden and the defect of each twin. VERIFY, FILES and OUT: golden_files.sh.
# Prints a line a file: model, file, command, verdict, worst error over allowed, processor seconds, why (of twins: what
# `diagnose` names, and what it should); and at the end how many lines are wrong, which is also the exit status.
. "$(dirname "$0")/golden_files.sh"

# run EXPECTED MODEL LABEL COMMAND ARGUMENTS...   EXPECTED: pass, fail, convention, or the number of a defect ("any": no number)
run() {
  local expected=$1 model=$2 label=$3 command=$4 json seconds; shift 4
  json="$kept/$model.$label.$command.json"
  rm -f "$json"
  seconds=$({ TIMEFORMAT='%U %S'
    time "$VERIFY" "$command" "$dir/$model/checkpoint" "$@" --json "$json" > "$json.txt" 2>&1; } 2>&1)
  python3 - "$json" "$model" "$label" "$command" "$expected" "$seconds" <<'PY' || wrong=$((wrong + 1))
import json, os, sys
path, model, label, command, expected, seconds = sys.argv[1:]
seconds = sum(map(float, seconds.split()))
worst = "-"
if not os.path.exists(path):
    with open(path + ".txt") as file:
        found, ok, why = "error", False, file.read().strip().splitlines()[-1]
else:
    with open(path) as file:
        report = json.load(file)
    why = report["why"]
    if command == "diagnose":
        first = report["ranking"][0] if report["ranking"] else {}
        named = f'{first.get("name", "")} ({first.get("variant", "")})'.replace(" ()", "")
        found, worst = report["conclusion"], first.get("worst_over_allowed") or "-"
        if expected == "convention":
            ok = found == "convention"
        else:
            ok = found == "defect" and (expected == "any" or int(expected) in report["defects"] + report["also"])
        why = f'{"+".join(map(str, report["defects"])) or "-"} (is {expected}) {named}' if found != "unknown" else why
    else:
        found = report["verdict"]
        ok = found == expected
        def ratio(x):
            return abs(x["other"] - x["golden"]) / x["limit"] if x["limit"] else 0
        numbers = [p["worst_over_allowed"] for p in report.get("parameters", []) if p["worst_over_allowed"] is not None]
        numbers += [ratio(x) for x in report["losses"]] if command == "gradients" else \
                   [q["worst_over_allowed"] for q in report.get("quantities", [])]
        worst = max(numbers, default="-")
worst = worst if isinstance(worst, str) else f"{worst:.3g}"
print(f'{" " if ok else "!"} {model:8} {label:42} {command:9} {found:12} {worst:>9} {seconds:7.1f}  {why}', flush=True)
sys.exit(not ok)
PY
}

# fact MODEL KEY...   an entry of training.provenance.json, "" where there is none
fact() {
  python3 - "$dir/$1/training.provenance.json" "${@:2}" <<'PY'
import json, sys
with open(sys.argv[1]) as file:
    value = json.load(file)
for key in sys.argv[2:]:
    value = value.get(key, {})
print(value if value != {} else "")
PY
}

# expected MODEL KEY...   a defect's number; P7, a plausible one, is 207; "any" where it has none
expected() {
  local number; number=$(fact "$@" defect)
  case $number in
    P*) echo $((200 + ${number#P})) ;;
    ''|none) echo any ;;
    *) echo "$number" ;;
  esac
}

gradients() {
  local model=$1 file=$2 label=$3 folder="$dir/$1/" golden
  golden="$folder$(cut -d. -f1-2 <<< "$label").safetensors"
  case ${label#gradients.} in
    twin-*)
      golden="${folder}gradients.$(fact "$model" twins "${label#gradients.twin-}" against).safetensors"
      run fail "$model" "$label" gradients "$golden" --candidate "$file"
      run "$(expected "$model" twins "${label#gradients.twin-}")" "$model" "$label" diagnose "$golden" --candidate "$file" ;;
    *.fp32|*.bf16)
      run pass "$model" "$label" gradients "$golden" --candidate "$file" --precision "hf-${label##*.}" ;;
    *.maxtext|*.megatron)
      run pass "$model" "$label" gradients "$file" --semantics "${label##*.}"
      run convention "$model" "$label" diagnose "$golden" --candidate "$file" ;;
    *.*) run convention "$model" "$label" diagnose "$golden" --candidate "$file" ;;
    *) run pass "$model" "$label" gradients "$file" ;;
  esac
}

trajectory() {
  local model=$1 file=$2 label=$3 folder="$dir/$1/" stage name
  case $label in
    *.twin-*)
      stage=${label%.twin-*} name=${label#trajectory.}
      [ "$(fact "$model" trajectory twins "${name/twin-/}" schedule)" = cosine ] && stage=$stage.cosine
      run fail "$model" "$label" training "$folder$stage.safetensors" --candidate "$file" ;;
    *.fp32) run pass "$model" "$label" training "$folder${label%.fp32}.safetensors" --candidate "$file" --precision hf-fp32 ;;
    *) run pass "$model" "$label" training "$file" ;;
  esac
}

printf '  %-8s %-42s %-9s %-12s %9s %7s  %s\n' model file command verdict worst seconds 'why, or the defect found'
for folder in "$dir"/*/; do
  model=$(basename "$folder")
  [ $# = 0 ] || [[ " $* " == *" $model "* ]] || continue
  for file in "$folder"gradients.*.safetensors "$folder"trajectory.*.safetensors; do
    label=$(basename "$file" .safetensors)
    [ -f "$file" ] && [[ "$label" =~ $FILES ]] && "${label%%.*}" "$model" "$file" "$label"
  done
done
echo "$wrong lines are wrong"
[ $wrong = 0 ]
