"""Small releases of benchmarks with questions: the same made items in every layout."""

import json
from typing import Any

from tests.evaluation.benchmarks.releases import Release, jsonl, table


def exam(number: int, **names: str) -> dict[str, Any]:
    """A question with options A to D and a letter for its answer; `names` rename its columns."""
    row = {"question": f' Wo "{number}"?'} | {
        letter: f"{letter.lower()}, {number}" for letter in "ABCD"
    }
    row |= {"answer": "ABCD"[number % 4]}
    return {names.get(name, name): value for name, value in row.items()}


EXAM = 'Wo "1"?\nA. a, 1\nB. b, 1\nC. c, 1\nD. d, 1\n'
OPTIONS = {letter: f"option_{letter.lower()}" for letter in "ABCD"}

_mmlu = [exam(n) for n in (1, 2)]
_mmlu_hub = [
    {
        "question": row["question"],
        "subject": "anatomy",
        "choices": [row[letter] for letter in "ABCD"],
        "answer": "ABCD".index(row["answer"]),
    }
    for row in _mmlu
]
_cmmlu = [{"": n} | exam(n, question="Question", answer="Answer") for n in (1, 2)]
_mmmlu = [row | {"Subject": "anatomy"} for row in _cmmlu]
_okapi = [exam(n, question="instruction", **OPTIONS) | {"id": f"anatomy/{n}"} for n in (1, 2)]
_global = [exam(n, **OPTIONS) | {"subject": "anatomy", "subject_category": "STEM"} for n in (1, 2)]
_prox = [
    {
        "question_id": n,
        "question": f' Wo "{n}"?',
        **{f"option_{i}": f"{'abcd'[i]}, {n}" if i < 4 else None for i in range(10)},
        "answer": "ABCD"[n % 4],
        "answer_index": n % 4,
        "category": "computer science",
    }
    for n in (1, 2)
]
_include = [
    exam(n, **OPTIONS) | {"answer": n % 4, "domain": "Arts & Humanities", "language": "Kazakh"}
    for n in (1, 2)
]
_letters = dict(answer=(1,), asks=EXAM + "Answer:")


def _without(row: dict, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}


EXAMS = [
    Release(
        "mmlu",
        "en",
        **_letters,
        authors={
            f"data/{split}/anatomy_{split}.csv": table(_mmlu, header=False)
            for split in ("dev", "val", "test")
        },
        hub={("anatomy", split): _mmlu_hub for split in ("dev", "validation", "test")},
    ),
    Release("mmlu", "en", **_letters, hub={("all", s): _mmlu_hub for s in ("dev", "test")}),
    Release(
        "cmmlu",
        "zh",
        asks=EXAM + "答案：",
        answer=(1,),
        authors={f"{split}/anatomy.csv": "\ufeff" + table(_cmmlu) for split in ("dev", "test")},
        hub={("anatomy", split): _cmmlu for split in ("dev", "test")},
    ),
    Release(
        "ceval",
        "zh",
        asks=EXAM + "答案：",
        answer=(1,),
        authors={
            "dev/law_dev.csv": table([{"id": n} | exam(n) | {"explanation": "x"} for n in (1, 2)]),
            "val/law_val.csv": table([{"id": n} | exam(n) for n in (1, 2)]),
            "test/law_test.csv": table([{"id": 1} | _without(exam(1), "answer")]),
        },
        hub={
            ("law", split): [{"id": n} | exam(n) | {"explanation": ""} for n in (1, 2)]
            for split in ("dev", "val", "test")
        },
    ),
    Release(
        "jmmlu",
        "ja",
        asks=EXAM + "答え:",
        answer=(1,),
        authors={"JMMLU/anatomy.csv": "\ufeff" + table(_mmlu, header=False)},
        hub={("anatomy", "test"): _mmlu},
    ),
    Release(
        "mmmlu",
        "de",
        **_letters,
        authors={"test/mmlu_DE-DE.csv": table(_mmmlu)},
        hub={("DE_DE", "test"): _mmmlu},
    ),
    Release(
        "xmmlu",
        "ne",
        **_letters,
        authors={
            f"datasets/m_mmlu/ne_{split}.json": json.dumps(_okapi) for split in ("train", "test")
        },
        hub={("ne", split): _okapi for split in ("train", "val", "test")},
    ),
    Release(
        "global_mmlu", "ne", **_letters, hub={("ne", split): _global for split in ("dev", "test")}
    ),
    Release(
        "global_mmlu_lite",
        "sw",
        **_letters,
        hub={("sw", split): _global for split in ("dev", "test")},
    ),
    *(
        Release(
            task, "ne", **_letters, hub={("ne", split): _prox for split in ("validation", "test")}
        )
        for task in ("mmlu_prox", "mmlu_prox_lite")
    ),
    Release(
        "include",
        "kk",
        asks=EXAM.replace("\nD.", "\n D.") + "Answer:",
        answer=(1,),
        hub={("Kazakh", split): _include for split in ("validation", "test")},
        shots=0,
    ),
]

_agieval = [
    {
        "passage": None,
        "question": f"1+{n}?",
        "options": ["(A)2", "(B)3"],
        "label": "AB"[n - 1],
        "answer": None,
        "other": {"source": "x"},
    }
    for n in (1, 2)
]
_cloze = [row | {"options": None, "label": None, "answer": "2"} for row in _agieval]
_samples = table(
    [{"": "sample 1", "aqua-rat": repr(_agieval[1]), "math": repr(_cloze[1])}]
    + [{"": "explanation 1", "aqua-rat": "a", "math": "b"}]
)


def _arc(labels: str, answer: str) -> dict[str, Any]:
    return {
        "id": f"id-{labels}",
        "question": f'Which "{labels}"?',
        "choices": {"text": [f"t {label}" for label in labels], "label": list(labels)},
        "answerKey": answer,
    }


def _arc_line(row: dict) -> dict[str, Any]:
    """ARC as its authors write it."""
    choices = [
        {"text": text, "label": label} for text, label in zip(*row["choices"].values(), strict=True)
    ]
    question = {"stem": row["question"], "choices": choices}
    return {"id": row["id"], "question": question, "answerKey": row["answerKey"]}


_arc_rows = {"train": [_arc("ABCD", "B"), _arc("ABCDE", "E")], "test": [_arc("123", "3")]}
_sib = [
    {"index_id": n, "category": "science/technology", "text": f'He said, "{n}"'} for n in (1, 2)
]

OTHER_CHOICES = [
    Release(
        "agieval",
        "en",
        asks="Problem 2.    1+1?\nChoose from the following options:    (A)2 (B)3\n"
        "The answer is therefore",
        answer=(0,),
        authors={
            "data/v1_1/aqua-rat.jsonl": jsonl(_agieval),
            "data/few_shot_prompts.csv": _samples,
        },
    ),
    Release(
        "agieval",
        "en",
        asks="Q: 1+1? Answer Choices: (A)2 (B)3\nA: Among A through B, the answer is",
        answer=(0,),
        authors={"data/v1/aqua-rat.jsonl": jsonl(_agieval)},
        hub={("aqua-rat", "test"): _agieval},
        shots=0,
    ),
    Release(
        "agieval_cloze",
        "en",
        asks="Problem 2.   1+1?\nThe answer is therefore",
        answer=("2",),
        authors={"data/v1/math.jsonl": jsonl(_cloze), "data/few_shot_prompts.csv": _samples},
    ),
    *(
        Release(
            task,
            "en",
            asks='Question: Which "123"?\nAnswer:',
            answer=(2,),
            authors={
                f"ARC-V1-Feb2018-2/{config}/{config}-{split}.jsonl": jsonl(
                    [_arc_line(row) for row in _arc_rows[split.lower()]]
                )
                for split in ("Train", "Test")
            },
            hub={(config, split): rows for split, rows in _arc_rows.items()},
            tfds=(f"ai2_arc/{config}", _arc_rows),
        )
        for task, config in (("arc_challenge", "ARC-Challenge"), ("arc_easy", "ARC-Easy"))
    ),
    Release(
        "sib200",
        "kk",
        asks="what category does the text: 'He said, \"1\"' belong to: \n\n",
        answer=(0,),
        authors={
            f"data/annotated/kaz_Cyrl/{split}.tsv": table(_sib, "\t")
            for split in ("train", "dev", "test")
        },
        hub={("kaz_Cyrl", split): _sib for split in ("train", "validation", "test")},
    ),
]
