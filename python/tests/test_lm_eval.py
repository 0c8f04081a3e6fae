"""The adapter of lm-evaluation-harness on a model of bigrams, whose log-likelihoods are sums of a table's rows."""
import types

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from dsa import lm_eval as adapter  # noqa: E402  it needs lm_eval

V = 13


class Bigrams:
    """What the adapter asks of a dsa.Model."""

    def __init__(self, checkpoint, format):
        self.table = np.random.default_rng(3).standard_normal((V, V))
        self.config = {"max_position_embeddings": 8, "bos_token_id": 0}
        self.sequences, self.asked = 0, []

    def tokenize(self, text):
        return [ord(c) % V for c in text]

    def logits(self, sequences):
        self.sequences += len(sequences)
        return [self.table[s] for s in sequences]

    def generate(self, context, **options):
        self.asked.append((context, options))
        return "text"

    def log_p(self, tokens):
        rows = [adapter.log_softmax(self.table[a])[b] for a, b in zip(tokens, tokens[1:])]
        return float(np.sum(rows))


@pytest.fixture(name="lm")
def adapter_on_bigrams(monkeypatch):
    monkeypatch.setattr(adapter, "Model", Bigrams)
    return adapter.Adapter.create_from_arg_string("pretrained=somewhere,batch_size=2")


def requests(*arguments):
    return [types.SimpleNamespace(args=a) for a in arguments]


def test_a_continuation_is_scored_given_its_context(lm):
    (got, greedy), = lm.loglikelihood(requests(("abc", "de")))
    assert got == pytest.approx(lm.model.log_p(lm.model.tokenize("cde")), rel=1e-12)
    best = int(lm.model.table[ord("c") % V].argmax())
    (_, greedy), = lm.loglikelihood(requests(("c", next(c for c in "abcdefghijklm" if ord(c) % V == best))))
    assert greedy is True


def test_an_empty_context_is_the_start_token(lm):
    (got, _), = lm.loglikelihood(requests(("", "ab")))
    assert got == pytest.approx(lm.model.log_p([0, *lm.model.tokenize("ab")]), rel=1e-12)


def test_a_context_that_is_too_long_is_cut_at_its_start(lm):
    (got, _), = lm.loglikelihood(requests(("abcdefghijk", "lm")))
    assert got == pytest.approx(lm.model.log_p(lm.model.tokenize("klm")), rel=1e-12)


def test_what_begins_another_request_is_not_run_twice(lm):
    answers = lm.loglikelihood(requests(("ab", "c"), ("ab", "cd"), ("x", "y")))
    assert lm.model.sequences == 2
    assert [a[0] for a in answers] == pytest.approx(
        [lm.model.log_p(lm.model.tokenize(t)) for t in ("bc", "bcd", "xy")], rel=1e-12)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
def test_rolling_scores_every_token_once(lm, length):
    text = "abcdefghijklmnopqrstuvwxyzabcdef"[:length]
    got, = lm.loglikelihood_rolling(requests((text,)))
    assert got == pytest.approx(lm.model.log_p([0, *lm.model.tokenize(text)]), rel=1e-12)


def test_generation_stops_where_it_is_told(lm):
    assert lm.generate_until(requests(("a", {"until": ["\n"], "max_gen_toks": 5}))) == ["text"]
    assert lm.model.asked == [("a", {"chat": "none", "max_tokens": 5, "temperature": 0.0, "top_p": 1.0, "stop": ["\n"]})]
