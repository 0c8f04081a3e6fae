"""A checkpoint run by the CPU backend of dsa-run."""
import json
import math
import os
import pathlib
import tempfile

from dsa import _programs, _safetensors
from dsa._arrays import integers_of, whole
from dsa._errors import require

FORMATS = ("fp32", "bf16", "fp8")


class Model:
    """A checkpoint directory and the format its products are computed in: "fp32", "bf16" or "fp8".

    Every call runs dsa-run, which loads the checkpoint: give it all sequences at once. dsa.Error is its sentence.
    """

    def __init__(self, checkpoint, format="bf16", *, chunk=None, threads=None):
        require(isinstance(checkpoint, (str, os.PathLike)), "checkpoint is no path")
        self.checkpoint = pathlib.Path(checkpoint)
        require((self.checkpoint / "config.json").is_file(), f"{checkpoint} is no checkpoint: it has no config.json")
        require(format in FORMATS, f"format is {format!r:.80}, expected {', '.join(FORMATS)}")
        self.format = format
        self.config = json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8"))
        self._flags = ["--format", format]
        for name, value in (("--chunk", chunk), ("--threads", threads)):
            if value is not None:
                self._flags += [name, whole(name, value, 1, 2**20)]

    def logits(self, tokens):
        """Logits (S, V) of tokens (S), or a list of them for a list of sequences; fp32 numbers as fp64 arrays."""
        many = isinstance(tokens, (list, tuple)) and len(tokens) > 0 and not isinstance(tokens[0], (int, float))
        sequences = [integers_of("tokens", s, 1).tolist() for s in (tokens if many else [tokens])]
        require(all(sequences), "a sequence has no tokens")
        with tempfile.TemporaryDirectory(prefix="dsa-") as folder:
            given, out = pathlib.Path(folder, "tokens.json"), pathlib.Path(folder, "logits.safetensors")
            given.write_text(json.dumps(sequences), encoding="utf-8")
            _programs.run("dsa-run", ["logits", self.checkpoint, "--tokens", given, "--out", out, *self._flags])
            batch = _safetensors.read(out, ("logits",))["logits"]
        rows = [batch[b, :len(s)] for b, s in enumerate(sequences)]
        return rows if many else rows[0]

    def generate(self, prompt, *, max_tokens=256, temperature=0.0, top_p=1.0, seed=1, chat=None, system=None, stop=()):
        """The text that follows a prompt. temperature 0: the likeliest token. chat: "v3.1", "v3.2" or "none" (the
        prompt as it is); by default the checkpoint's. The text ends before the first of the strings in `stop`."""
        require(isinstance(prompt, str) and prompt, "prompt is no text, or empty")
        require(math.isfinite(temperature) and temperature >= 0, f"temperature is {temperature}, expected 0 or more")
        flags = ["--max-tokens", whole("max_tokens", max_tokens, 1), "--temperature", temperature, "--top-p", top_p,
                 "--seed", whole("seed", seed, 0, 2**62)]
        for name, value in (("--chat", chat), ("--system", system)):
            flags += [] if value is None else [name, value]
        with tempfile.TemporaryDirectory(prefix="dsa-") as folder:
            file = pathlib.Path(folder, "prompt.txt")
            file.write_text(prompt, encoding="utf-8")
            text = _programs.run("dsa-run", ["generate", self.checkpoint, "--prompt-file", file, *flags, *self._flags])
        text = text.removesuffix("\n")
        for end in stop:
            text = text.split(end, 1)[0]
        return text

    def tokenize(self, text):
        """Token ids of a text, by the checkpoint's tokenizer.json."""
        require(isinstance(text, str), "the text is no str")
        with tempfile.TemporaryDirectory(prefix="dsa-") as folder:
            file = pathlib.Path(folder, "text.txt")
            file.write_text(text, encoding="utf-8")
            return json.loads(_programs.run("dsa-run", ["tokenize", self.checkpoint, "--prompt-file", file]))
