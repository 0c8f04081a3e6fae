#!/usr/bin/env python3
"""Writes the prompts that lm-evaluation-harness makes of data/mmlu: the golden of dsa-run mmlu's.

Needs lm_eval (0.4.13 made the bundled file), datasets and the Python package dsa.

    python data/mmlu_prompts.py data/mmlu data/mmlu/prompts.json
"""
import json
import sys
import tempfile

from dsa.mmlu_tasks import write_tasks
from lm_eval.tasks import TaskManager

SUBJECTS = ("anatomy", "formal_logic", "high_school_us_history", "virology")
CHOICES = [" A", " B", " C", " D"]


def prompts(task, subject, shots):
    """The prompt before each question's four choices."""
    task.set_config(key="num_fewshot", value=shots)
    task.build_all_requests(limit=None, rank=0, world_size=1)
    found = []
    for i in range(0, len(task.instances), len(CHOICES)):
        pairs = [instance.args for instance in task.instances[i:i + len(CHOICES)]]
        assert [choice for _, choice in pairs] == CHOICES and len({prompt for prompt, _ in pairs}) == 1
        found.append({"subject": subject, "shots": shots, "question": len(found), "prompt": pairs[0][0]})
    return found


def main():
    mmlu, out = sys.argv[1:]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(mmlu, folder)
        manager = TaskManager(include_path=folder)
        for subject in SUBJECTS:
            for shots in (0, 5):
                name = f"local_mmlu_{subject}"
                found += prompts(manager.load_task_or_group([name])[name], subject, shots)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file, ensure_ascii=False, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
