"""How a model is trained, as JSON: the recipe of docs/judging_training.md, with its defaults."""
import copy
import json
import math
import re

from golden_files import Failure
from kl_semantics import parse

DEFAULTS = {
    "stage": "sparse", "attention": None, "coefficients": None, "bias_update_rate": 0, "semantics": "paper",
    "trained": [],
    "adamw": {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "eps_inside_root": False, "bias_correction": True,
              "weight_decay": 0.1, "decoupled": True, "decayed": "matrices"},
    "clip": {"max_norm": 1, "eps": 1e-6}, "accumulation": 1,
    "schedule": {"kind": "constant", "lr": 1e-3, "warmup": 0, "steps": 20, "final": 0, "decay": 0}}
COEFFICIENTS = {"pretrain": {"lm": 1, "kl": 0}, "warmup": {"lm": 0, "kl": 1}, "sparse": {"lm": 1, "kl": 0.01}}


def merged(default, given, what):
    if not isinstance(given, dict):
        raise Failure(f"{what} is not a JSON object")
    if unknown := sorted(given.keys() - default.keys()):
        raise Failure(f"{what} has the unknown key {unknown[0]!r}; it knows {', '.join(sorted(default))}")
    out = copy.deepcopy(default)
    for key, value in given.items():
        out[key] = merged(default[key], value, f"{what}: {key!r}") if isinstance(default[key], dict) else value
    return out


class Recipe:
    def __init__(self, given, what="the recipe"):
        self.given = given
        r = merged(DEFAULTS, given, what)
        if r["stage"] not in COEFFICIENTS:
            raise Failure(f"{what}: the stage is {r['stage']!r}, expected {', '.join(COEFFICIENTS)}")
        zero = {"mtp": 0, "balance": 0}
        self.coefficients = merged({**COEFFICIENTS[r["stage"]], **zero}, r["coefficients"] or {},
                                   f"{what}: 'coefficients'")
        self.stage = r["stage"]
        self.dense = (r["attention"] or ("sparse" if self.stage == "sparse" else "dense")) == "dense"
        self.semantics = parse(r["semantics"], f"{what}: 'semantics'")
        if self.stage == "warmup":
            self.semantics = self.semantics.in_warmup()
        self.trained = [re.compile(p) for p in r["trained"]]
        self.adamw, self.clip, self.schedule = r["adamw"], r["clip"], r["schedule"]
        self.accumulation = r["accumulation"]
        for key, value, known in (("schedule.kind", self.schedule["kind"], ("constant", "cosine", "wsd")),
                                  ("adamw.decayed", self.adamw["decayed"], ("matrices", "all"))):
            if value not in known:
                raise Failure(f"{what}: {key} is {value!r}, expected {', '.join(known)}")
        absent = {"coefficients.mtp": self.coefficients["mtp"], "coefficients.balance": self.coefficients["balance"],
                  "bias_update_rate": r["bias_update_rate"]}
        for key, value in absent.items():
            if value:
                raise Failure(f"{what}: {key} is {value}, and transformers has no such term; make it 0")
        if self.adamw["eps_inside_root"] or not self.adamw["bias_correction"]:
            raise Failure(f"{what}: torch's AdamW corrects the bias and adds eps outside of the root; "
                          "no golden of another one is made")

    def trains(self, parameter):
        if self.trained:
            return any(p.search(parameter) for p in self.trained)
        return self.stage == "sparse" or (".indexer." in parameter) == (self.stage == "warmup")

    def rate(self, step):
        s = self.schedule
        if step < s["warmup"]:
            return s["lr"] * (step + 1) / s["warmup"]
        if s["kind"] == "cosine":
            past = min((step - s["warmup"]) / (s["steps"] - s["warmup"]), 1)
            return s["lr"] * (s["final"] + (1 - s["final"]) * (1 + math.cos(math.pi * past)) / 2)
        if s["kind"] == "wsd" and step >= s["steps"] - s["decay"]:
            past = min((step - s["steps"] + s["decay"] + 1) / s["decay"], 1)
            return s["lr"] * (1 - (1 - s["final"]) * past)
        return s["lr"]


def read_recipe(file, steps, stage):
    """The recipe of a JSON file, or the defaults of a stage; its schedule has `steps` steps unless it says otherwise."""
    given = {"stage": stage}
    if file:
        with open(file) as f:
            given = json.load(f)
    if isinstance(given, dict) and isinstance(given.setdefault("schedule", {}), dict):
        given["schedule"].setdefault("steps", steps)
    return Recipe(given, file or "the recipe")
