"""The adapter of lm-evaluation-harness on a model of bigrams, whose log-likelihoods are sums of a table's rows."""
import json
import subprocess
import sys
import types

import numpy as np
import pytest

pytest.importorskip("lm_eval")

import dsa  # noqa: E402
from dsa import lm_eval as adapter  # noqa: E402  it needs lm_eval
from dsa.mmlu_tasks import write_tasks  # noqa: E402

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


def test_spaces_at_the_end_of_a_context_are_the_continuations(lm):
    (got, _), = lm.loglikelihood(requests(("ab ", "c")))
    assert got == pytest.approx(lm.model.log_p(lm.model.tokenize("b c")), rel=1e-12)


def test_lm_eval_knows_the_name():
    code = "from lm_eval.api.registry import get_model; print(get_model('dsa'))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert said.stdout.strip() == "<class 'dsa.lm_eval.Adapter'>", said.stderr


def test_tasks_of_a_release_that_is_none_are_refused(tmp_path):
    with pytest.raises(dsa.Error, match="has no file SUBJECT_test.csv"):
        write_tasks(tmp_path, tmp_path / "tasks")
    for folder in ("dev", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"virology_{folder}.csv").write_text("q,a,b,c,E\n", encoding="utf-8")
    with pytest.raises(dsa.Error, match="expected a question, four choices"):
        write_tasks(tmp_path, tmp_path / "tasks")


def test_tasks_are_lm_evals_own_on_local_questions(root, tmp_path):
    names = write_tasks(root / "data/mmlu", tmp_path)
    assert len(names) == 57
    task = json.loads((tmp_path / "local_mmlu_virology.yaml").read_text(encoding="utf-8"))
    assert task["include"].endswith("mmlu_virology.yaml")
    lines = (tmp_path / "virology.test.jsonl").read_text(encoding="utf-8").splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [["answer", "choices", "question"]] * 3
