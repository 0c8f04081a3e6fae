"""python -m dsa --version: what this package was built from."""
import argparse

from dsa import _core, _programs


def main():
    parser = argparse.ArgumentParser(prog="python -m dsa", description="Facts about the installed package dsa.")
    parser.add_argument("--version", action="store_true", help="version, commit, compiler, flags")
    parser.add_argument("--programs", action="store_true", help="where dsa-verify and dsa-run are")
    args = parser.parse_args()
    if args.programs:
        for name in ("dsa-verify", "dsa-run"):
            print(f"{name}: {_programs.find(name) or 'not installed'}")
    elif args.version:
        build = _core.build()
        print(f"dsa {build['version']} ({build['commit']}; {build['compiler']}; {build['flags']})")
    else:
        parser.print_help()


if __name__ == "__main__":
    main()
