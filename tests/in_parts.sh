#!/bin/sh
# tests/in_parts.sh PROGRAM SPEC PARTS — the cases of a Catch2 program that SPEC names, in PARTS processes at once.
parts=$1.parts
rm -rf "$parts"
mkdir "$parts"
"$1" --list-test-names-only "$2" | sed 's/,/\\,/g' | split -n "r/$3" - "$parts/"
# A name that Catch2 cannot read back would be a case that silently does not run.
# shellcheck disable=SC2016
printf '%s\n' "$parts"/?? | xargs -P "$3" -I PART sh -c '"$0" -f PART > PART.log 2>&1
  status=$?
  cat PART.log
  [ $status -eq 0 ] && ! grep -q "Invalid Filter" PART.log' "$1"
