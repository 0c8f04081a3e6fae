"""The judge and the model from Python, on a bundled sample; skipped where the programs are not installed."""
import numpy as np
import pytest

import dsa
from dsa import _programs, _safetensors

needs_verify = pytest.mark.skipif(not _programs.find("dsa-verify"), reason="dsa-verify is not installed")
needs_run = pytest.mark.skipif(not _programs.find("dsa-run"), reason="dsa-run is not installed")


@pytest.fixture(name="sample")
def sample_folder(root):
    return root / "data/samples/v32"


def test_tensors_survive_a_file(draw, tmp_path):
    tensors = {"a": draw.standard_normal((2, 3)), "b": np.arange(4), "c": draw.standard_normal(3).astype(np.float32)}
    _safetensors.write(tmp_path / "x.safetensors", tensors)
    back = _safetensors.read(tmp_path / "x.safetensors")
    assert all(np.array_equal(back[name], x) for name, x in tensors.items())
    assert list(_safetensors.read(tmp_path / "x.safetensors", ("b",))) == ["b"]
    (tmp_path / "y").write_bytes(b"no header")
    with pytest.raises(dsa.Error, match="no safetensors file"):
        _safetensors.read(tmp_path / "y")


@needs_verify
def test_a_golden_passes_and_a_spoilt_candidate_fails(sample):
    verdict = dsa.verify.golden(sample / "checkpoint", sample / "logits.safetensors", runs=8)
    assert verdict.ok and verdict.outcome == "pass" and verdict["exit_code"] == 0
    assert "<iframe" in verdict._repr_html_() and "PASS" in repr(verdict)
    logits = _safetensors.read(sample / "logits.safetensors")
    name = next(n for n in ("logits.fp64", "logits", "logits.fp32") if n in logits)
    same = dsa.verify.golden(sample / "checkpoint", sample / "logits.safetensors", candidate=logits[name], runs=8)
    assert same.outcome in ("pass", "inconclusive")
    spoilt = dsa.verify.golden(sample / "checkpoint", sample / "logits.safetensors", candidate=logits[name] * 1.01, runs=8)
    assert spoilt.outcome == "fail" and not spoilt.ok


@needs_verify
def test_bad_input_is_the_programs_sentence(sample, tmp_path):
    with pytest.raises(dsa.Error) as caught:
        dsa.verify.golden(tmp_path, sample / "logits.safetensors")
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(dsa.Error, match="expected a path"):
        dsa.verify.golden(sample / "checkpoint", 3)


@needs_run
def test_logits_of_a_model_are_its_goldens(sample):
    given = _safetensors.read(sample / "logits.safetensors", ("tokens", "logits.fp64", "logits.fp32"))
    tokens = given["tokens"][0]
    model = dsa.Model(sample / "checkpoint", format="fp32")
    one = model.logits(tokens)
    assert one.shape[0] == len(tokens)
    both = model.logits([tokens, tokens[:5]])
    assert np.array_equal(both[0], one) and len(both[1]) == 5
    want = given.get("logits.fp64", given.get("logits.fp32"))
    if want is not None:  # fp32's noise is judged by dsa-verify; here only that it is the same model
        assert np.abs(one - want[0]).max() < 1e-3 * np.abs(want[0]).max()


@needs_run
def test_a_checkpoint_that_is_none(tmp_path):
    with pytest.raises(dsa.Error, match="no checkpoint"):
        dsa.Model(tmp_path)


@needs_run
def test_tokens_outside_the_vocabulary(sample):
    with pytest.raises(dsa.Error) as caught:
        dsa.Model(sample / "checkpoint").logits([10**6])
    assert "\n" not in str(caught.value)


def test_a_trace_of_what_is_no_module():
    with pytest.raises(dsa.Error, match="no torch module"):
        dsa.trace(3)


def test_a_trace_of_a_torch_module():
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    with torch.no_grad(), dsa.trace(model) as trace:
        model(torch.ones(5, 3))
    assert list(trace.trace) == ["0", "1"] and trace.trace["1"].shape == (5, 2)
