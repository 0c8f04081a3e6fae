#!/usr/bin/env python3
"""Writes a small set of multiple-choice questions in the layout of MMLU's release: data/mmlu.

57 subjects, five examples and three questions each: sums, differences, lengths of words and orders of numbers, with the
commas, quotes, line breaks, spaces and letters that a reader of CSV and a tokenizer may get wrong. The questions are
made here; none of them is MMLU's. The same command gives the same bytes.

    python data/make_mmlu.py data/mmlu
"""
import argparse
import csv
import pathlib
import random

SUBJECTS = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
professional_law professional_medicine professional_psychology public_relations security_studies sociology
us_foreign_policy virology world_religions
""".split()
WORDS = ["key", "token", "index", "softmax", "attention", "größer", "深度", "naïve"]


class Draw:
    """Draws that are the same in every version of Python: random() alone is."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def below(self, n):
        return int(self.random.random() * n)

    def shuffled(self, values):
        values = list(values)
        for i in range(len(values) - 1, 0, -1):
            j = self.below(i + 1)
            values[i], values[j] = values[j], values[i]
        return values


def arithmetic(draw):
    a, b = 10 + draw.below(90), 1 + draw.below(9)
    return f"What is {a} + {b}?", a + b, [a - b, a + b + 1, a + b - 1]


def difference(draw):
    a, b = 50 + draw.below(50), 1 + draw.below(40)
    return f"  Take {b} from {a}.\nWhat is left, if nothing else is taken?  ", a - b, [a + b, b, a - b + 10]


def word(draw):
    value = WORDS[draw.below(len(WORDS))]
    n = len(value)
    return f'How many letters has the word "{value}"?', n, [n + 1, n + 2, n + 3]


def order(draw):
    values = draw.shuffled([3, 14, 15, 92])
    return f"Which is the largest: {', '.join(map(str, values))}?", '"92", the last', ["3, the first", "14", " 15 "]


KINDS = [arithmetic, difference, word, order]


def row(draw):
    text, right, wrong = KINDS[draw.below(len(KINDS))](draw)
    choices = draw.shuffled([right, *wrong])
    return [text, *choices, "ABCD"[choices.index(right)]]


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    for seed, subject in enumerate(SUBJECTS):
        draw = Draw(seed)
        write(out / "dev" / f"{subject}_dev.csv", [row(draw) for _ in range(5)])
        write(out / "test" / f"{subject}_test.csv", [row(draw) for _ in range(3)])


if __name__ == "__main__":
    main()
