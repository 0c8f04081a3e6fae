#!/usr/bin/env bash
# The judge, mutated: every entry of mutants.txt is one line of verify/, or of the backward pass of
# reference/, made wrong. The tests of both must fail on each; a survivor is a hole in the tests.
# Usage: tests/mutants/run.sh [PATTERN]
# tries the mutants whose file or text matches PATTERN. Works on a copy in build-mutants/.
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=$PWD/build-mutants/source list=$PWD/tests/mutants/mutants.txt pattern=${1:-}
mkdir -p "$copy"
git ls-files -z | while IFS= read -r -d '' f; do  # only what differs: the rest is not built again
  cmp -s "$f" "$copy/$f" || cp --parents "$f" -t "$copy"
done
cd "$copy"
cmake -S . -B ../build -G Ninja -DCMAKE_BUILD_TYPE=Release -DDSA_ASSERTS=ON -DDSA_BACKENDS=OFF -DDSA_TOGETHER=OFF >/dev/null
build() { cmake --build ../build --target dsa_tests_judge >../build.log 2>&1; }
tests() { ../build/bin/dsa_tests_judge '[judge]~[slow],[defects]~[slow],[backward]~[differences],[gradients]' --abort >../test.log 2>&1; }
build || { tail -n 20 ../build.log; exit 2; }
tests || { echo "the tests fail without a mutant"; tail -n 20 ../test.log; exit 2; }

killed=0 survived=0
while IFS=$'\037' read -r file from to why; do  # a separator that read does not merge, as it does tabs
  case $file in ''|'#'*) continue ;; esac
  [[ -z $pattern || "$file $from $to" == *"$pattern"* ]] || continue
  cp "$file" ../original
  FROM=$from TO=$to perl -0pi -e '
    my ($f, $t) = @ENV{qw(FROM TO)};
    my $n = () = /\Q$f\E/g;
    die "$ARGV holds \"$f\" $n times, expected once\n" if $n != 1;
    s/\Q$f\E/$t/' "$file"
  if ! build; then
    verdict="does not compile"; survived=$((survived + 1))
  elif tests; then
    verdict=SURVIVED; survived=$((survived + 1))
  else
    verdict=killed; killed=$((killed + 1))
  fi
  cp ../original "$file"
  printf '%-17s %s: %s\n' "$verdict" "$file" "$why"
done < <(tr '\t' '\037' <"$list")
echo "$killed mutants killed, $survived survived"
[ "$survived" -eq 0 ]
