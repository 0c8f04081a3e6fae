"""The package as it is installed: no torch, facts about its build, one kind of error."""
import subprocess
import sys

import dsa


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd="/", check=False)


def test_version():
    done = python("-m", "dsa", "--version")
    assert done.returncode == 0 and done.stdout.startswith(f"dsa {dsa.__version__} (")


def test_importing_it_imports_no_framework():
    done = python("-c", "import sys, dsa.reference, dsa.testing, dsa.verify, dsa.model\n"
                        "print([m for m in ('torch', 'jax', 'safetensors', 'lm_eval') if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_an_unknown_room_is_an_attribute_error():
    assert not hasattr(dsa, "nothing")
