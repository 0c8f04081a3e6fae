#!/usr/bin/env bash
# Runs a compiler and keeps what ptxas says of registers and spills: DIRECTORY COMMAND...
set -uo pipefail
directory=$1
shift
mkdir -p "$directory"
report=$directory/$(basename "${@: -1}").txt
for ((i = 1; i < $#; ++i)); do
  [[ ${!i} == -o ]] && next=$((i + 1)) && report=$directory/$(basename "${!next}").txt
done
"$@" 2>"$report"
status=$?
grep -v '^ptxas info\|bytes stack frame\|^$' "$report" >&2
exit $status
