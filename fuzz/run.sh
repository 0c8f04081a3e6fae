#!/bin/sh
# fuzz/run.sh NAME SECONDS — one fuzzer of build-fuzz/, from its seeds in fuzz/corpus/. What it finds lies in
# build-fuzz/found/.
found=build-fuzz/found/$1
mkdir -p "$found"
build-fuzz/bin/fuzz_"$1" -max_total_time="$2" -malloc_limit_mb=256 -print_final_stats=1 -artifact_prefix=build-fuzz/found/ \
  "$found" "fuzz/corpus/${1#golden_}" 2> "$found.log" || { tail -n 30 "$found.log"; exit 1; }
echo "fuzzed $1 for $2 s: $(sed -n 's/stat::number_of_executed_units: *//p' "$found.log") inputs"
