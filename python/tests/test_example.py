"""The example passes, and each of six planted bugs fails it with a message that names the bug's kind."""
import subprocess
import sys

import pytest

# what is right in the example, what is planted, the kind that the failure must name
BUGS = {
    "relu is left out": ("dots = dots * (dots > 0)", "pass", "no relu"),
    "mask off by one": ("(key < end[:, None])", "(key <= end[:, None])", "a future key"),
    "keys twice": ("[:, :k]\n", "[:, :k] // 2 * 2\n", "a duplicate"),
    "-1 first": ("return chosen", "return xp.flip(chosen, (1,))", "-1 in the middle"),
    "-1 is a key": ("taken = chosen >= 0", "chosen = xp.where(chosen < 0, 0, chosen)\n    taken = chosen >= 0",
                    "-1 is taken for key 0"),
    "scale of the head size": ("scores = scale *", "scores = q.shape[-1] ** -0.5 *",
                               "the softmax scale is (R+P)^-1/2"),
}


def run(source, folder, *options):
    path = folder / "test_kernel.py"
    path.write_text(source, encoding="utf-8")
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *options, str(path)],
                          capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(name="example")
def example_source(root):
    return (root / "python/examples/test_my_kernel.py").read_text(encoding="utf-8")


def test_the_example_passes_and_says_what_it_skips(example, tmp_path):
    done = run(example, tmp_path, "--dsa-report", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stdout
    assert "every key is selected, and no selection can be wrong" in done.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Every output is within its bounds" in page and "mla_sparse" in page and "Skipped" in page


@pytest.mark.parametrize("bug", list(BUGS))
def test_a_planted_bug_is_named(bug, example, tmp_path):
    right, wrong, kind = BUGS[bug]
    assert example.count(right) == 1
    done = run(example.replace(right, wrong), tmp_path, "--maxfail=6", "--dsa-report", str(tmp_path / "report.html"))
    assert done.returncode == 1, done.stdout
    kinds = [line.split("kind: ", 1)[1] for line in done.stdout.splitlines() if "   kind: " in line]
    assert kinds and any(kind in said for said in kinds), done.stdout[-3000:]
    assert "Wrong outputs" in (tmp_path / "report.html").read_text(encoding="utf-8")
