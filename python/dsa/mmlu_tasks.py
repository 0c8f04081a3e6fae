"""MMLU's release on disk as tasks of lm-evaluation-harness, which otherwise loads it from the internet.

    python -m dsa.mmlu_tasks MMLU TASKS
    lm_eval --model dsa --model_args pretrained=DIR --tasks local_mmlu --include_path TASKS --num_fewshot 5

MMLU holds dev/SUBJECT_dev.csv and test/SUBJECT_test.csv. TASKS gets a task `local_mmlu_SUBJECT` for each, with the
prompt of lm-eval's own task `mmlu_SUBJECT`, and the group `local_mmlu`, whose accuracy is the mean over questions.
"""
import argparse
import csv
import json
import pathlib

from dsa._errors import Error, require

ENDING = "_test.csv"


def read(file):
    """The questions of a file, as cais/mmlu on the hub has them."""
    require(file.is_file(), f"there is no {file}, expected MMLU's dev/SUBJECT_dev.csv and test/SUBJECT_test.csv")
    questions = []
    with file.open(encoding="utf-8", newline="") as rows:
        for row in csv.reader(rows):
            require(len(row) == 6 and row[5] in "ABCD", f"{file} has the row {row!r:.80}, expected a question, four "
                                                        "choices and a letter from A to D")
            questions.append({"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5])})
    return questions


def write_task(mmlu, tasks, subject):
    """One task; its name."""
    data = {}
    for split, file in (("dev", f"dev/{subject}_dev.csv"), ("test", f"test/{subject}_test.csv")):
        data[split] = str((tasks / f"{subject}.{split}.jsonl").resolve())
        lines = [json.dumps(question) + "\n" for question in read(mmlu / file)]
        pathlib.Path(data[split]).write_text("".join(lines), encoding="utf-8")
    name = f"local_mmlu_{subject}"
    task = {"include": _own_task(subject), "task": name, "task_alias": subject, "tag": None, "dataset_path": "json",
            "dataset_name": None, "dataset_kwargs": {"data_files": data}}
    (tasks / f"{name}.yaml").write_text(json.dumps(task, indent=2), encoding="utf-8")  # JSON is YAML
    return name


def _own_task(subject):
    """The file of lm-eval's own task."""
    import lm_eval.tasks
    file = pathlib.Path(lm_eval.tasks.__file__).parent / "mmlu" / "default" / f"mmlu_{subject}.yaml"
    require(file.is_file(), f"lm_eval has no task mmlu_{subject}; is {subject} a subject of MMLU?")
    return str(file)


def write_tasks(mmlu, tasks):
    """A task for every subject, and their group; the names of the tasks."""
    mmlu, tasks = pathlib.Path(mmlu), pathlib.Path(tasks)
    subjects = sorted(file.name[:-len(ENDING)] for file in (mmlu / "test").glob("*" + ENDING))
    require(subjects, f"{mmlu / 'test'} has no file SUBJECT{ENDING}")
    tasks.mkdir(parents=True, exist_ok=True)
    names = [write_task(mmlu, tasks, subject) for subject in subjects]
    group = {"group": "local_mmlu", "task": names, "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}
    (tasks / "local_mmlu.yaml").write_text(json.dumps(group, indent=2), encoding="utf-8")
    return names


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dsa.mmlu_tasks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mmlu", help="directory with dev/ and test/")
    parser.add_argument("tasks", help="directory to write")
    arguments = parser.parse_args()
    try:
        print(f"{len(write_tasks(arguments.mmlu, arguments.tasks))} tasks in {arguments.tasks}")
    except Error as error:
        parser.exit(2, f"dsa.mmlu_tasks: {error}\n")


if __name__ == "__main__":
    main()
