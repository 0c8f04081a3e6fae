#!/usr/bin/env python3
"""One tiny checkpoint, asked the same questions five ways: lm_eval with HuggingFace, with dsa and with a server,
dsa-run mmlu, and OpenAI's client; then a load of clients.

    python python/tests/evaluate_everywhere.py [--seconds 60] [--out DIR]

Needs lm_eval, datasets, torch, transformers, openai, the package dsa, and dsa-run on PATH. It prints every number that
two of them must agree on, and ends with status 1 where they do not. The noise of bf16 is measured: hf's bf16 against
its fp32. Bf16 may be twice that away from hf's fp32; fp32, with 16 bits more, a 256th of it, half of these bits.
Accuracies of fp32 are equal. Not a part of the test suite, which has neither torch nor a minute.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "data"))
SHOTS = 5


def make_checkpoint(folder):
    """DeepSeek-V3.2 in small, random weights, with the tokenizer of the sample `deepseek`."""
    import tiny_models
    recipe = json.loads(json.dumps(tiny_models.FAMILIES["v32"]))
    recipe["config"].update(vocab_size=650, max_position_embeddings=2048, index_topk=64, bos_token_id=0, eos_token_id=1)
    tiny_models.FAMILIES["speaker"] = {**recipe, "config": {**tiny_models.COMMON, **recipe["config"]}}
    tiny_models.make_checkpoint("speaker", str(folder), 11)
    shutil.copy(ROOT / "data/text/deepseek/tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<｜begin▁of▁sentence｜>",
        "eos_token": "<｜end▁of▁sentence｜>", "clean_up_tokenization_spaces": False}), encoding="utf-8")


def evaluate(model, arguments, tasks, folder, limit):
    """({(subject, question): [4 log-likelihoods]}, accuracy over questions, seconds) by lm_eval."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    start = time.time()
    found = simple_evaluate(model=model, model_args=arguments, tasks=tasks, num_fewshot=SHOTS, batch_size=16,
                            task_manager=TaskManager(include_path=str(folder)), log_samples=True, bootstrap_iters=0,
                            limit=limit)
    scores, right = {}, []
    for task, samples in found["samples"].items():
        for sample in samples:
            values = [float(r[0][0]) for r in sample["resps"]]
            scores[task.removeprefix("local_mmlu_"), sample["doc_id"]] = values
            right.append(sample["acc"])
    return scores, statistics.mean(right), time.time() - start


def by_program(checkpoint, mmlu, folder, form, tasks, limit):
    """The same by dsa-run mmlu."""
    start, out = time.time(), folder / f"mmlu-{form}.json"
    subjects = ",".join(task.removeprefix("local_mmlu_") for task in tasks)
    subprocess.run(["dsa-run", "mmlu", checkpoint, "--data", mmlu, "--format", form, "--json", out, "--shots",
                    str(SHOTS), "--limit", str(limit), "--subjects", subjects], check=True, stdout=subprocess.DEVNULL)
    found = json.loads(out.read_text(encoding="utf-8"))
    scores = {(name, i): answer["log_likelihoods"] for name, subject in found["subjects"].items()
              for i, answer in enumerate(subject["answers"])}
    return scores, found["all"]["accuracy"], time.time() - start


class Server:
    """dsa-run serve, as long as the block lasts; its end by SIGTERM must be clean."""

    def __init__(self, checkpoint, *flags):
        command = ["dsa-run", "serve", checkpoint, "--port", "0", "--name", str(checkpoint), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = re.match(r"listening on (\S+)", self.process.stdout.readline()).group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, "the server did not end cleanly"

    def memory(self):
        """Resident MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def ask_as_openai(server, model):
    """The official client: models, completions whole and streamed, a conversation, an error."""
    import openai
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0)
    assert [m.id for m in client.models.list()] == [model]
    whole = client.completions.create(model=model, prompt="Hello", max_tokens=12, temperature=0, echo=True, logprobs=3)
    assert len(whole.choices[0].logprobs.token_logprobs) == whole.usage.total_tokens
    stream = client.completions.create(model=model, prompt="Hello", max_tokens=12, temperature=0, stream=True)
    assert "Hello" + "".join(piece.choices[0].text for piece in stream) == whole.choices[0].text
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    chat = client.chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0)
    stream = client.chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0, stream=True,
                                            stream_options={"include_usage": True})
    pieces = list(stream)
    assert "".join(c.delta.content or "" for p in pieces for c in p.choices) == chat.choices[0].message.content
    assert pieces[-1].usage.total_tokens == chat.usage.total_tokens
    try:
        client.completions.create(model="another", prompt="Hello")
        raise AssertionError("a wrong model was accepted")
    except openai.NotFoundError as error:
        print("openai client: all as expected; an error reads:", error.body["message"])


def load(server, model, clients, seconds):
    """So many clients, each asking again as soon as it is answered: requests, failures, median and 95 % latency."""
    import openai
    end = time.time() + seconds

    def client(seed):
        api = openai.OpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0)
        times, failures = [], 0
        while time.time() < end:
            start = time.time()
            try:
                answer = api.completions.create(model=model, prompt=f"Question {seed} of {len(times)}:", max_tokens=16,
                                                temperature=1, seed=seed)
                failures += answer.choices[0].finish_reason not in ("length", "stop")
            except openai.APIError:
                failures += 1
            times.append(time.time() - start)
        return times, failures

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        done = list(pool.map(client, range(clients)))
    times = sorted(t for ts, _ in done for t in ts)
    print(f"{clients:3} clients, {seconds} s: {len(times)} requests, {sum(f for _, f in done)} failed, "
          f"{len(times) / seconds:.1f} a second, median {1e3 * times[len(times) // 2]:.0f} ms, "
          f"95 % {1e3 * times[len(times) * 95 // 100]:.0f} ms, memory {server.memory():.0f} MiB", flush=True)
    return sum(f for _, f in done)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/evaluate"))
    parser.add_argument("--seconds", type=int, default=60, help="of the load of 16 clients")
    parser.add_argument("--subjects", type=int, default=57, help="the first of them")
    parser.add_argument("--limit", type=int, default=1, help="questions of each subject")
    arguments = parser.parse_args()
    out, seconds, limit = arguments.out.resolve(), arguments.seconds, arguments.limit
    os.environ["HF_HUB_OFFLINE"] = "1"
    from dsa.mmlu_tasks import write_tasks
    checkpoint, mmlu = out / "checkpoint", ROOT / "data/mmlu"
    checkpoint.mkdir(parents=True, exist_ok=True)
    make_checkpoint(checkpoint)
    tasks = write_tasks(mmlu, out / "tasks")[:arguments.subjects]

    ways = {}
    for form, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        asked = (tasks, out / "tasks", limit)
        plain = "device=cpu,attn_implementation=eager,experts_implementation=eager"  # tiny widths fit no fast kernel
        ways["hf", form] = evaluate("hf", f"pretrained={checkpoint},dtype={dtype},{plain}", *asked)
        ways["dsa", form] = evaluate("dsa", f"pretrained={checkpoint},format={form}", *asked)
        ways["dsa-run mmlu", form] = by_program(checkpoint, mmlu, out, form, tasks, limit)
    with Server(checkpoint, "--format", "fp32") as server:
        ways["local-completions", "fp32"] = evaluate(
            "local-completions", f"model={checkpoint},base_url={server.url}/v1/completions,tokenizer={checkpoint},"
            "tokenizer_backend=huggingface,add_bos_token=True,num_concurrent=4", tasks, out / "tasks", limit)
        ask_as_openai(server, str(checkpoint))

    want, accuracy, _ = ways["hf", "fp32"]
    noise = max(abs(a - b) for key, row in ways["hf", "bf16"][0].items() for a, b in zip(row, want[key]))
    wrong = 0
    for (way, form), (scores, share, spent) in ways.items():
        assert scores.keys() == want.keys()
        worst = max(abs(a - b) for key, row in scores.items() for a, b in zip(row, want[key]))
        print(f"{way:18} {form}: {len(scores)} questions, accuracy {share:.4f}, {spent:.1f} s, log-likelihoods differ "
              f"from hf fp32 by at most {worst:.2e}")
        wrong += form == "fp32" and (share != accuracy or worst > noise / 256)
        wrong += form == "bf16" and worst > 2 * noise
    with Server(checkpoint, "--format", "fp32") as server:
        wrong += sum(load(server, str(checkpoint), clients, min(10, seconds)) for clients in (1, 4))
        wrong += load(server, str(checkpoint), 16, seconds)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
