# experiments/rates/golden_files.sh — what measure_golden.sh, diagnose_golden.sh and measure_gradients.sh share; sourced by them.
#
# DIR holds one folder a model: checkpoint/, logits.safetensors with columns fp64, fp32 and bf16, and
# where they exist left-padded, ragged, trace.*, llama.cpp-{f32,f16cache,bf16} and twin-* files.
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

# for_each_file SET...   calls, for every file of these models (all, if none is named),
#   visit KIND MODEL LABEL PRECISION FILE     KIND: column, file, llama.cpp or twin
for_each_file() {
  local folder model file name pair
  for folder in "$dir"/*/; do
    model=$(basename "$folder")
    [ $# = 0 ] || [[ " $* " == *" $model "* ]] || continue
    [ -f "${folder}logits.safetensors" ] || continue
    for pair in fp64:fp64 fp32:hf-fp32 bf16:hf-bf16; do
      visit_if column "$model" "logits.${pair%%:*}" "${pair##*:}" "${folder}logits.safetensors"
    done
    for file in "$folder"left-padded.safetensors "$folder"ragged.safetensors "$folder"trace.*.safetensors; do
      visit_if file "$model" "$(basename "$file" .safetensors)" fp64 "$file"
    done
    for pair in f32:hf-fp32 f16cache:llama-f16 bf16:hf-bf16; do
      name=llama.cpp-${pair%%:*}
      visit_if llama.cpp "$model" "$name" "${pair##*:}" "$folder$name.safetensors"
    done
    for file in "$folder"twin-*.safetensors; do
      visit_if twin "$model" "$(basename "$file" .safetensors)" hf-fp32 "$file"
    done
  done
}

visit_if() { [ -f "$5" ] && [[ "$3" =~ $FILES ]] && visit "$@"; return 0; }
