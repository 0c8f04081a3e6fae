#!/usr/bin/env bash
# The judge, mutated: every entry of mutants.txt is one line of verify/, of the backward pass of
# reference/, or of a CUDA kernel, which the host executes, made wrong. Their tests must fail on
# each; a survivor is a hole in the tests.
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
configure() { cmake -S . -B "../$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DDSA_ASSERTS=ON -DDSA_TOGETHER=OFF "${@:2}" >/dev/null; }
configure judge -DDSA_BACKENDS=OFF
configure cuda -DDSA_CUDA=OFF
part_of() { case $1 in optimized/cuda/*) echo cuda ;; *) echo judge ;; esac; }
cases() { case $1 in cuda) echo '*' ;; *) echo '[judge]~[slow],[defects]~[slow],[backward]~[differences],[gradients]' ;; esac; }
build() { cmake --build "../$1" --target "dsa_tests_$1" >../build.log 2>&1; }
tests() { "../$1/bin/dsa_tests_$1" "$(cases "$1")" --abort >../test.log 2>&1; }
is_sound() {
  build "$1" || { tail -n 20 ../build.log; exit 2; }
  tests "$1" || { echo "the tests fail without a mutant"; tail -n 20 ../test.log; exit 2; }
  sound+=" $1 "
}

killed=0 survived=0 sound=
while IFS=$'\037' read -r file from to why; do  # a separator that read does not merge, as it does tabs
  case $file in ''|'#'*) continue ;; esac
  [[ -z $pattern || "$file $from $to" == *"$pattern"* ]] || continue
  part=$(part_of "$file")
  [[ $sound == *" $part "* ]] || is_sound "$part"
  cp "$file" ../original
  FROM=$from TO=$to perl -0pi -e '
    my ($f, $t) = @ENV{qw(FROM TO)};
    my $n = () = /\Q$f\E/g;
    die "$ARGV holds \"$f\" $n times, expected once\n" if $n != 1;
    s/\Q$f\E/$t/' "$file"
  if ! build "$part"; then
    verdict="does not compile"; survived=$((survived + 1))
  elif tests "$part"; then
    verdict=SURVIVED; survived=$((survived + 1))
  else
    verdict=killed; killed=$((killed + 1))
  fi
  cp ../original "$file"
  printf '%-17s %s: %s\n' "$verdict" "$file" "$why"
done < <(tr '\t' '\037' <"$list")
echo "$killed mutants killed, $survived survived"
[ "$survived" -eq 0 ]
