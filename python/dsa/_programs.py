"""dsa-verify and dsa-run: shipped in the package where it was built with them, otherwise those on PATH."""
import json
import pathlib
import shutil
import subprocess
import tempfile

from dsa._errors import Error, require


def find(name):
    """The program's path, or None."""
    shipped = pathlib.Path(__file__).parent / "bin" / name
    return str(shipped) if shipped.exists() else shutil.which(name)


def run(name, arguments, allowed=(0,)):
    """Runs a program; its standard output. Error: it is not installed, or ends with a status not allowed: then the
    sentence is the program's own."""
    program = find(name)
    require(program, f"{name} is neither in this package nor on PATH; install with "
                     "pip install . -C cmake.define.DSA_PYTHON_PROGRAMS=ON, or put a build's bin directory on PATH")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Error(said.removeprefix("error: ").removeprefix(f"{name}: "))
    return done.stdout


def report(name, arguments, *, html=True, allowed=(0, 1, 3)):
    """Runs a program that writes a report: what --json holds, the page that --html holds where it has one, and what it
    prints."""
    with tempfile.TemporaryDirectory(prefix="dsa-") as folder:
        as_json, as_html = pathlib.Path(folder, "report.json"), pathlib.Path(folder, "report.html")
        flags = ["--json", as_json, *(["--html", as_html] if html else [])]
        text = run(name, [*arguments, *flags], allowed)
        page = as_html.read_text(encoding="utf-8") if html else ""
        return json.loads(as_json.read_text(encoding="utf-8")), page, text
