"""lm-evaluation-harness on the CPU backend: lm_eval --model dsa --model_args pretrained=DIR,format=bf16 --tasks ...

The installed package registers the name with lm_eval (dsa._registered). Log-likelihoods are of the definition's model,
computed in `format`; tokens are those of the checkpoint's tokenizer.json.
"""
import numpy as np
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from dsa._errors import require
from dsa.model import Model


def log_softmax(row):
    """Logits (V) as log-probabilities."""
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def score(rows, tokens, first):
    """(sum of log-probabilities, whether each is the likeliest) of tokens[first:], by the logits (S, V) before them."""
    total, greedy = 0.0, True
    for at in range(first, len(tokens)):
        row = log_softmax(rows[at - 1])
        total += float(row[tokens[at]])
        greedy = greedy and int(row.argmax()) == tokens[at]
    return total, greedy


def windows(tokens, most, start):
    """Rolling windows: (tokens with one of context before them, how many of them are context); every token is scored
    once, with as much context as `most` tokens allow."""
    tokens, found, at = [start, *tokens], [], 1
    while at < len(tokens):
        end = min(at + most - 1, len(tokens)) if not found else min(at + most // 2, len(tokens))
        begin = max(0, end - most)
        found.append((tokens[begin:end], at - begin))
        at = end
    return found


@register_model("dsa")
class Adapter(LM):
    """dsa.Model as lm-eval asks for it."""

    def __init__(self, pretrained, format="bf16", batch_size=16, max_length=None, **_):
        super().__init__()
        self.model = Model(pretrained, format)
        self.batch = int(batch_size)
        longest = self.model.config.get("max_position_embeddings", 2048)
        self.longest = min(int(max_length or longest), longest)
        start = self.model.config.get("bos_token_id", 0)
        self.start = start[0] if isinstance(start, list) else start or 0
        require(self.batch > 0 and self.longest > 1, "batch_size and max_length must be positive, max_length above 1")

    @classmethod
    def create_from_arg_string(cls, arg_string, additional_config=None):
        """"pretrained=DIR,format=bf16"."""
        arguments = dict(pair.split("=", 1) for pair in arg_string.split(",") if pair)
        extra = {k: v for k, v in (additional_config or {}).items() if k == "batch_size" and str(v).isdigit()}
        require("pretrained" in arguments, "--model_args lacks pretrained=DIR, a checkpoint directory")
        return cls(**{**extra, **arguments})

    def _scored(self, jobs):
        """score() of (tokens, first), with sequences that share a start run once."""
        order = sorted(range(len(jobs)), key=lambda i: -len(jobs[i][0]))
        runs, place = [], {}
        for i in order:  # a sequence that begins a longer one needs no run of its own
            tokens = jobs[i][0]
            found = next((r for r, run in enumerate(runs) if run[:len(tokens)] == tokens), None)
            if found is None:
                found = len(runs)
                runs.append(tokens)
            place[i] = found
        results = [None] * len(jobs)
        for begin in range(0, len(runs), self.batch):
            logits = self.model.logits(runs[begin:begin + self.batch])
            for i, run in place.items():
                if begin <= run < begin + self.batch:
                    results[i] = score(logits[run - begin], *jobs[i])
        return results

    def loglikelihood(self, requests):
        """[(log-probability, is greedy)] of each (context, continuation)."""
        jobs = []
        for context, continuation in (request.args for request in requests):
            bare = context.rstrip()  # spaces belong to the word behind them, as lm_eval has it
            context, continuation = bare, context[len(bare):] + continuation
            whole = self.model.tokenize(context + continuation)
            before = self.model.tokenize(context) if context else [self.start]
            tokens = whole if context else [self.start, *whole]
            first = min(len(before), len(tokens) - 1)
            cut = max(0, len(tokens) - self.longest)
            jobs.append((tokens[cut:], max(1, first - cut)))
        return self._scored(jobs)

    def loglikelihood_rolling(self, requests):
        """[log-probability] of whole texts."""
        jobs, owner = [], []
        for i, (text,) in enumerate(request.args for request in requests):
            for window in windows(self.model.tokenize(text), self.longest, self.start):
                jobs.append(window)
                owner.append(i)
        totals = [0.0] * len(requests)
        for i, (value, _) in zip(owner, self._scored(jobs)):
            totals[i] += value
        return totals

    def generate_until(self, requests):
        """[text] up to the strings in `until`."""
        texts = []
        for context, options in (request.args for request in requests):
            until = options.get("until") or []
            texts.append(self.model.generate(
                context, chat="none", max_tokens=int(options.get("max_gen_toks", 256)),
                temperature=float(options.get("temperature", 0.0)) if options.get("do_sample") else 0.0,
                top_p=float(options.get("top_p", 1.0)), stop=[until] if isinstance(until, str) else until))
        return texts
