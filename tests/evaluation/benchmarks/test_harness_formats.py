"""Prompts of benchmarks of which no files are held, against lm-evaluation-harness's own.

The harness builds its requests from its packaged task files, over rows in the hub's columns.
"""

import json

import pytest

from benchmarks.harness_tasks import build_task
from marco_jax.evaluation import benchmarks

pytest.importorskip("lm_eval")

WORDS = ("Fe", "'q'", '"x"', "{b}", "naïve", "水", "\\frac", "1")
STORY = "include/default/Kazakh/include_base_44_kazakh_arts_humanities.yaml"

pytestmark = pytest.mark.usefixtures("offline_harness")


def exam(number):
    return {
        "question": f" Q{number} {WORDS[number % 8]}? ",
        **{f"option_{letter}": f"{WORDS[(number + n) % 8]} {n}" for n, letter in enumerate("abcd")},
        "answer": "ABCD"[number % 4],
        "subject": "anatomy" if number % 2 else "virology",
        "subject_category": "STEM" if number % 2 else "Medical",
        "domain": "Arts & Humanities" if number % 2 else "STEM",
        "text": f"A {WORDS[number % 8]} of {number}.",
        "category": ("sports", "health", "science/technology")[number % 3],
    }


EXAM = [exam(number) for number in range(24)]
NUMBERED = [row | {"answer": "ABCD".index(row["answer"])} for row in EXAM]


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize(
    ("task", "language", "part", "path", "config", "rows", "pool"),
    [
        ("global_mmlu", "ne", "anatomy", "global_mmlu/full/ne/global_mmlu_full_ne_anatomy.yaml")
        + ("ne", EXAM, "dev"),
        ("global_mmlu_lite", "sw", "STEM", "global_mmlu/default/sw/global_mmlu_sw_stem.yaml")
        + ("sw", EXAM, "dev"),
        ("include", "kk", "Arts & Humanities", STORY, "Kazakh", NUMBERED, ""),
        ("sib200", "sw", None, "afrobench/sib/prompt_1/sib_swa.yaml")
        + ("swh_Latn", EXAM, "validation"),
    ],
)
def test_prompts_are_the_harnesss(tmp_path, task, language, part, path, config, rows, pool, shots):
    splits = {"test": rows[::-1]} | ({pool: rows} if pool else {})
    folder = tmp_path / task / config
    folder.mkdir(parents=True)
    for split, items in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in items]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    built = build_task(path, splits, shots, tmp_path)
    built.build_all_requests()
    expected = [instance.args for instance in built.instances]
    # A code that is not one of the 29 languages'.
    asked = config if task == "sib200" else language
    found = benchmarks.prompts(task, asked, tmp_path, format="harness", shots=shots, part=part)
    assert [(prompt.context, choice) for prompt in found for choice in prompt.choices] == expected
