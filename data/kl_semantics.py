"""Trainers' readings of the indexer's loss, as data: the names and switches of docs/judging_training.md.

They stand here a second time, beside the judge's own, because a golden must not depend on what it judges. As read in
the code of each: MaxText 0.2.5, Megatron-LM d98e8a64 with use_sparse_loss, the HuggingFace fork 05daf43c with its
default flags, prime-rl, xtuner.
"""
import dataclasses
import json
import os

from golden_files import Failure

CHOICES = dict(teacher_softmax=("chosen", "visible"), teacher_keys=("chosen", "visible"),
               student_keys=("chosen", "visible"), tokens=("mean", "sum"), layers=("mean", "sum"),
               detach=("inputs", "query_latent", "nothing"))


@dataclasses.dataclass(frozen=True)
class Semantics:
    name: str = "paper"
    teacher_softmax: str = "chosen"  # the keys over which each head's softmax runs
    teacher_keys: str = "chosen"     # the keys that the teacher is restricted to
    student_keys: str = "chosen"     # the keys over which the student is a softmax
    student_scaled: bool = True      # the student sees scores with H^-1/2 D^-1/2, or without
    l1_added: float = 0.0            # guards: x becomes max(x + added, least); in the teacher's sum,
    l1_least: float = 0.0
    log_p_added: float = 0.0         # under the teacher's logarithm,
    log_p_least: float = 0.0
    log_q_added: float = 0.0         # under the student's
    log_q_least: float = 0.0
    tokens: str = "mean"
    layers: str = "mean"             # over the layers that compute an index
    padding_counted: bool = False    # padding is a segment of its own, and counted
    detach: str = "inputs"           # constants: hidden states and query latent, the latent alone, or neither

    def in_warmup(self):
        """The same over every visible key."""
        return dataclasses.replace(self, teacher_softmax="visible", teacher_keys="visible", student_keys="visible")


PRESETS = {s.name: s for s in (
    Semantics(),
    Semantics("maxtext", l1_added=1e-8, log_p_added=1e-8, log_q_added=1e-8, padding_counted=True),
    Semantics("megatron", l1_least=1e-10, log_p_least=1e-10, layers="sum"),
    Semantics("hf-fork", student_keys="visible", l1_added=1e-10, log_p_added=1e-10, padding_counted=True,
              detach="nothing"),
    Semantics("prime-rl", student_keys="visible", student_scaled=False, l1_least=1e-12, log_p_least=1e-12,
              layers="sum", detach="nothing"),
    Semantics("xtuner"),
)}


def named(name):
    if name not in PRESETS:
        raise Failure(f"unknown semantics {name!r}; expected {', '.join(PRESETS)}, or a file with JSON")
    return PRESETS[name]


def parse(value, what):
    """A name, or an object: {"name": NAME} and the switches that differ from it."""
    if isinstance(value, str):
        return named(value)
    if not isinstance(value, dict):
        raise Failure(f"{what} is neither a name nor a JSON object")
    switches = dict(value)
    base = named(switches.pop("name", "paper"))
    for key, given in switches.items():
        if key not in base.__dict__:
            raise Failure(f"{what}: {key!r} is no switch of the indexer's loss")
        fits = given in CHOICES[key] if key in CHOICES else (
            isinstance(given, bool) if isinstance(getattr(base, key), bool) else
            isinstance(given, (int, float)) and not isinstance(given, bool) and given >= 0)
        if not fits:
            expected = CHOICES.get(key) or ("true or false" if isinstance(getattr(base, key), bool) else "a number >= 0")
            raise Failure(f"{what}: {key} is {given!r}, expected {expected}")
    semantics = dataclasses.replace(base, **switches)
    if semantics.teacher_keys == "visible" and semantics.student_keys == "chosen":
        raise Failure(f"{what}: the teacher is over all visible keys and the student over the chosen ones, "
                      "so the KL is infinite")
    return semantics


def read(text):
    """A name, or a file with JSON, which gives its reading the file's name."""
    if text in PRESETS or not os.path.isfile(text):
        return named(text)
    with open(text) as f:
        semantics = parse(json.load(f), text)
    return dataclasses.replace(semantics, name=os.path.splitext(os.path.basename(text))[0])
