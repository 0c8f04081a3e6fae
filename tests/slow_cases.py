#!/usr/bin/env python3
"""Compares the tag [slow] with the processor time of every test case.

    slow_cases.py BUILD [--limit SECONDS]      run every case of BUILD/bin/dsa_tests by itself

A case of more than SECONDS (2) of processor time carries [slow]: `ctest -LE slow` leaves it out. Prints the cases
whose tag is wrong, the slowest first, and how much time both kinds take. Exit status: 0 every tag is right, 1 one
is missing. A case that is tagged and fast is told, and no error: other machines are slower.
"""
import argparse
import os
import resource
import subprocess
import sys


def cases_of(program, spec):
    listed = subprocess.run([program, "--list-test-names-only", spec], capture_output=True, text=True).stdout
    return [name for name in listed.splitlines() if name]


def seconds_of(program, case):
    escaped = case.replace("\\", "\\\\").replace(",", "\\,").replace("[", "\\[")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([program, escaped], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        print(f"fails: {case}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--limit", type=float, default=2.0, metavar="SECONDS")
    arguments = parser.parse_args()
    program = os.path.join(arguments.build, "bin", "dsa_tests")
    slow = set(cases_of(program, "[slow]"))
    times = {case: seconds_of(program, case) for case in cases_of(program, "*")}
    missing = 0
    for case, seconds in sorted(times.items(), key=lambda item: -item[1]):
        if (seconds > arguments.limit) != (case in slow):
            missing += case not in slow
            print(f"{seconds:7.1f} s  {'is not tagged' if case not in slow else 'is tagged and fast'}: {case}")
    for kind, chosen in (("slow", slow), ("others", times.keys() - slow)):
        print(f"{kind}: {len(chosen)} cases, {sum(times[case] for case in chosen):.1f} s of processor time")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
