"""Commands of dsa-verify as functions."""
import contextlib
import html
import os
import pathlib
import tempfile

import numpy as np

from dsa import _programs, _safetensors
from dsa._arrays import integers_of, stored
from dsa._errors import require


class Verdict:
    """A report of dsa-verify: `json` is the object that --json writes (docs/report.md), shown in a notebook as the page
    that --html writes, printed as the table of the terminal."""

    def __init__(self, json, page, table):
        self.json, self.page, self.table = json, page, table

    @property
    def outcome(self):
        """"pass", "fail" or "inconclusive"."""
        return self.json.get("verdict", "")

    @property
    def why(self):
        """The reason, one sentence."""
        return self.json.get("why", "")

    @property
    def ok(self):
        """Whether it is a pass; inconclusive is none."""
        return self.outcome == "pass"

    def save(self, path):
        """Writes the HTML page."""
        pathlib.Path(path).write_text(self._page(), encoding="utf-8")

    def _page(self):
        return self.page or f"<!doctype html><meta charset=utf-8><pre>{html.escape(self.table)}</pre>"

    def _repr_html_(self):
        return (f'<iframe srcdoc="{html.escape(self._page(), quote=True)}" style="width:100%;height:40rem;border:0">'
                "</iframe>")

    def __getitem__(self, key):
        return self.json[key]

    def __repr__(self):
        return self.table.rstrip() or f"{self.outcome}: {self.why}"


def _is_path(x):
    return isinstance(x, (str, os.PathLike))


def _options(**options):
    """Flags of the program, for what was given."""
    flags = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            flags += [flag, value]
    return flags


@contextlib.contextmanager
def _as_file(candidate, tokens_of):
    """A path of the candidate: itself, a trace saved, or arrays written with the tokens of a golden."""
    if candidate is None or _is_path(candidate):
        yield candidate
        return
    with tempfile.TemporaryDirectory(prefix="dsa-") as folder:
        path = pathlib.Path(folder, "candidate.safetensors")
        tensors = dict(candidate) if isinstance(candidate, dict) else {"logits": candidate}
        if "tokens" not in tensors:
            require(_is_path(tokens_of), "the candidate has no tokens; pass a dict with tokens and logits")
            given = _safetensors.read(tokens_of, ("tokens", "attention_mask"))
            require("tokens" in given, f"{tokens_of} has no tokens; pass a dict with tokens and logits")
            tensors |= {name: given[name].astype(np.int64) for name in ("tokens", "attention_mask") if name in given}
        tensors["tokens"] = integers_of("tokens", tensors["tokens"])
        if "logits" in tensors:
            tensors["logits"] = _batched(tensors["logits"], tensors["tokens"])
        _safetensors.write(path, tensors)
        yield path


def _batched(logits, tokens):
    """Logits (S, V) or (B, S, V) with as many axes as tokens ask for."""
    shape = stored("logits", logits)[2]
    wanted = tokens.ndim + 1
    require(len(shape) in (wanted, wanted - 1, wanted + 1),
            f"logits have shape {shape}, expected {(*tokens.shape, 'V')}, as tokens")
    if len(shape) == wanted - 1:
        return logits[None]
    return logits[0] if len(shape) == wanted + 1 else logits


def _run(command, arguments):
    return Verdict(*_programs.report("dsa-verify", [command, *arguments]))


def golden(checkpoint, golden, *, candidate=None, precision=None, dtype=None, names=None, runs=None, seed=None,
           max_kl_div=None, atol=None, rtol=None):
    """Judges `golden` (a path) alone, or `candidate` by it and by the definition.

    candidate: a path; logits (S, V) or (B, S, V) for the golden's tokens; or a dict of tensors by name. precision: of
    the judged side, such as "hf-fp32" or "hf-bf16"; max_kl_div, atol, rtol: limits of yours in place of derived ones.
    """
    require(_is_path(golden), f"golden is {type(golden).__name__}, expected a path")
    with _as_file(candidate, golden) as path:
        return _run("golden", [checkpoint, golden, *_options(
            candidate=path, precision=precision, dtype=dtype, names=names, runs=runs, seed=seed, max_kl_div=max_kl_div,
            atol=atol, rtol=rtol)])


def diagnose(checkpoint, candidate, *, precision=None, dtype=None, names=None, runs=None, seed=None):
    """Which known defect explains a wrong candidate: a path, or a dict with tokens and logits or a trace."""
    with _as_file(candidate, None) as path:
        return _run("diagnose", [checkpoint, path, *_options(precision=precision, dtype=dtype, names=names, runs=runs,
                                                             seed=seed)])


def localise(checkpoint, candidate, *, precision=None, dtype=None, names=None, runs=None, seed=None):
    """Which ops of a trace are wrong by themselves: a path, or a dict with tokens and the trace's tensors."""
    with _as_file(candidate, None) as path:
        arguments = [checkpoint, path, *_options(precision=precision, dtype=dtype, names=names, runs=runs, seed=seed)]
        return Verdict(*_programs.report("dsa-verify", ["localise", *arguments], html=False))


def gradients(checkpoint, golden, *, candidate=None, precision=None, semantics=None, loss=None, runs=None, seed=None):
    """Judges the losses and gradients of a training step: files as docs/gradients.md describes them."""
    for name, path in (("golden", golden), ("candidate", candidate)):
        require(path is None and name == "candidate" or _is_path(path), f"{name} is no path")
    arguments = [checkpoint, golden, *_options(candidate=candidate, precision=precision, semantics=semantics, loss=loss,
                                               runs=runs, seed=seed)]
    return Verdict(*_programs.report("dsa-verify", ["gradients", *arguments], html=False))
