"""The hooks of dsa.trace.torch on HuggingFace's V3.2: what they keep of a backward pass is what a golden has."""
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no torch here: the hooks of dsa.trace.torch are not tried")
transformers = pytest.importorskip("transformers", minversion="5.23",
                                   reason="no transformers here: the hooks of dsa.trace.torch are not tried")

from safetensors.torch import load_file  # noqa: E402  it comes with transformers

from dsa.trace.torch import Dump, next_token_loss  # noqa: E402  it needs torch


@pytest.fixture(name="golden")
def backward_trace(root):
    folder = root / "data/gradients/v32calm"
    return folder, load_file(folder / "backward-trace.safetensors")


def test_gradients_are_those_of_the_golden(golden):
    folder, want = golden
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "checkpoint", dtype=torch.float32,
                                                              attn_implementation="eager",
                                                              experts_implementation="eager")
    with Dump(model, gradients=True) as dump:
        loss = next_token_loss(model(want["tokens"], use_cache=False).logits, want["tokens"], None)
        loss.backward()
    assert float(loss.detach()) == pytest.approx(float(want["loss.lm"]), rel=2**-20)
    names = [name for name in want if name.startswith("d.")]
    assert len(names) > 12
    for name in names:
        mine, theirs = dump.trace[name].double(), want[name]
        # A gradient in fp32 lies within some hundred roundings of the fp64 one: sums of S terms in S positions.
        assert float((mine - theirs).norm() / theirs.norm()) < 200 * 2**-24, name
        assert dump.trace[name[2:]].shape == mine.shape
    assert "d.model.layers.0.self_attn.heads" in dump.trace
    assert "d.model.layers.0.attention_residual" in dump.trace
    assert not any(".indexer" in name for name in dump.trace if name.startswith("d."))


def test_a_dump_without_gradients_keeps_none(golden):
    folder, want = golden
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "checkpoint", dtype=torch.float32)
    with Dump(model, names="norm$") as dump:
        model(want["tokens"][:, :9], use_cache=False).logits.sum().backward()
    assert dump.trace and not any(name.startswith("d.") for name in dump.trace)


def test_padding_is_no_target():
    logits = torch.from_numpy(np.random.default_rng(5).standard_normal((1, 6, 7)))
    tokens = torch.tensor([[1, 2, 3, 4, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    assert next_token_loss(logits, tokens, mask) == next_token_loss(logits[:, :4], tokens[:, :4], None)
