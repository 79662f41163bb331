"""Tasks of lm-evaluation-harness over local files, and the same tasks as `marco eval` names them.

The harness's packaged task files stay as they are; only their data sets are replaced by local JSON
files with the columns of the hub's, read here without our own readers.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class LocalTask:
    """A task that both sides read from the same files.

    Attributes:
        name: as `marco eval --tasks` names it.
        language: of the task.
        path: of the harness's file, below its tasks folder.
        splits: rows by the harness's names of the splits.
        files: below the benchmarks' folder; no others are needed.
        metrics: the harness's names of metrics, by ours.
        changes: of the harness's task, for splits that are not held.
    """

    name: str
    language: str
    path: str
    splits: Mapping[str, Rows]
    files: tuple[str, ...]
    metrics: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"accuracy": "acc,none"})
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def link_files(self, data: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
        """A data directory below `folder` that holds this task's files alone, as links."""
        for name in self.files:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(data / name)
        return folder


def build_task(
    path: str, splits: Mapping[str, Rows], shots: int, folder: pathlib.Path, **changes: Any
) -> Any:
    """A ConfigurableTask of the harness's file over the given rows, kept as JSON in `folder`."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    tasks = pathlib.Path(lm_eval.__file__).parent / "tasks"
    config = load_yaml(tasks / path, resolve_func=True, recursive=True)
    for name in ("tag", "group"):
        config.pop(name, None)
    files = {}
    for split, rows in splits.items():
        files[split] = str(folder / f"{split}.jsonl")
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        pathlib.Path(files[split]).write_text("".join(lines), encoding="utf-8")
    config |= {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "num_fewshot": shots,
        **changes,
    }
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(1234)
    return task


def jsonl(path: pathlib.Path) -> Rows:
    """JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tsv(path: pathlib.Path, *columns: str) -> Rows:
    """Tab-separated values without quotes, with a header unless columns are given."""
    return table(path, columns or None, delimiter="\t", quoting=csv.QUOTE_NONE)


def table(path: pathlib.Path, columns: tuple[str, ...] | None = None, **options: Any) -> Rows:
    """Comma-separated values, with a header unless columns are given."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, columns, **options))


def squad(path: pathlib.Path) -> Rows:
    """The questions of a SQuAD file."""
    return [
        {
            "id": question["id"],
            "title": article.get("title", ""),
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {"text": [answer["text"] for answer in question["answers"]]},
        }
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def xcopa(data: pathlib.Path, language: str) -> LocalTask:
    """The test split, with shots from the validation split."""
    files = {"validation": f"xcopa/val.{language}.jsonl", "test": f"xcopa/test.{language}.jsonl"}
    splits = {split: jsonl(data / name) for split, name in files.items()}
    path = f"xcopa/default_{language}.yaml"
    return LocalTask("xcopa", language, path, splits, tuple(files.values()))


def xstorycloze(data: pathlib.Path, language: str) -> LocalTask:
    """The published evaluation fifth, with shots from the rest of the validation stories."""
    files = {
        split: f"xstorycloze/spring2016.val.{language}.tsv.split_20_80_{split}.tsv"
        for split in ("train", "eval")
    }
    # The files have a header of their own.
    columns = ("story_id", *(f"input_sentence_{n}" for n in range(1, 5)))
    columns += ("sentence_quiz1", "sentence_quiz2", "answer_right_ending")

    def rows(name: str) -> Rows:
        found = tsv(data / name, *columns)[1:]
        return [row | {"answer_right_ending": int(row["answer_right_ending"])} for row in found]

    splits = {split: rows(name) for split, name in files.items()}
    # The other languages' files name theirs and include this one.
    path = "xstorycloze/default_ar.yaml"
    return LocalTask("xstorycloze", language, path, splits, tuple(files.values()))


def xnli(data: pathlib.Path, language: str) -> LocalTask:
    """The validation split, which shots come from too: the training set is not held."""
    labels = ["entailment", "neutral", "contradiction"]
    name = f"xnli/dev-{language}.tsv"
    rows = tsv(data / name, "premise", "hypothesis", "label")
    rows = [row | {"label": labels.index(row["label"])} for row in rows]
    path, changes = f"xnli/xnli_{language}.yaml", {"training_split": None}
    return LocalTask("xnli", language, path, {"validation": rows}, (name,), changes=changes)


def belebele(data: pathlib.Path, language: str, code: str) -> LocalTask:
    """All passages; their first questions are the shots."""
    name = f"belebele/{code}.jsonl"
    rows = [
        {
            "flores_passage": row["passage"],
            "question": row["question"],
            **{f"mc_answer{n}": text for n, text in enumerate(row["choices"], 1)},
            "correct_answer_num": str(row["answer"] + 1),
        }
        for row in jsonl(data / name)
    ]
    path = f"belebele/belebele_{code}.yaml"
    return LocalTask("belebele:harness", language, path, {"test": rows}, (name,))


def mmlu(data: pathlib.Path, subject: str, format: str = "harness") -> LocalTask:
    """One subject, in letters ("harness") or with whole answers ("continuation")."""
    files = {split: f"mmlu/{split}/{subject}_{split}.csv" for split in ("dev", "test")}
    splits = {split: table(data / name) for split, name in files.items()}
    for row in itertools.chain(*splits.values()):
        row |= {"choices": [row[f"choice{n}"] for n in range(4)], "answer": int(row["answer"])}
    variant, changes = ("default", {}) if format == "harness" else (format, {"description": ""})
    path = f"mmlu/{variant}/mmlu_{subject}.yaml"
    names = tuple(files.values())
    return LocalTask(f"mmlu:{format}", "en", path, splits, names, changes=changes)


def cmmlu(data: pathlib.Path, subject: str) -> LocalTask:
    """One subject."""
    files = {split: f"cmmlu/{split}/{subject}.csv" for split in ("dev", "test")}
    splits = {split: table(data / name) for split, name in files.items()}
    for row in itertools.chain(*splits.values()):
        row["index"] = row.pop("")
    return LocalTask("cmmlu", "zh", f"cmmlu/cmmlu_{subject}.yaml", splits, tuple(files.values()))


def arc(data: pathlib.Path, config: str = "ARC-Easy") -> LocalTask:
    """The test split, with shots from the training split, in the authors' layout."""
    splits, files = {}, []
    for split, name in (("train", "Train"), ("validation", "Dev"), ("test", "Test")):
        files.append(f"arc/ARC-V1-Feb2018-2/{config}/{config}-{name}.jsonl")
        splits[split] = [
            {
                "question": row["question"]["stem"],
                "choices": {
                    field: [choice[field] for choice in row["question"]["choices"]]
                    for field in ("text", "label")
                },
                "answerKey": row["answerKey"],
            }
            for row in jsonl(data / files[-1])
        ]
    name = config.lower().replace("-", "_")
    return LocalTask(name, "en", f"arc/{name}.yaml", splits, tuple(files))


def tydiqa(data: pathlib.Path, split: str = "validation") -> LocalTask:
    """Swahili, the language with a training split; asks about that split or the other."""
    files = {
        name: f"tydiqa_goldp/tydiqa.goldp.sw.{stem}.json"
        for name, stem in (("train", "train"), ("validation", "dev"))
        if name in ("train", split)
    }
    splits = {name: squad(data / file) for name, file in files.items()}
    # The hub's file has all languages and names them in the ids.
    for number, row in enumerate(splits["train"]):
        row["id"] = f"swahili-{number}"
    metrics = {"f1": "f1,none", "exact_match": "exact_match,none"}
    path, names = "tydiqa/tydiqa_goldp_sw.yaml", tuple(files.values())
    # The harness keeps an item out of its own shots only where these come from its test split.
    changes = {"test_split": split, "validation_split": None}
    return LocalTask(f"tydiqa@{split}", "sw", path, splits, names, metrics, changes)


def mgsm(data: pathlib.Path, language: str, format: str = "direct") -> LocalTask:
    """The problems of a language, with its eight worked examples."""
    numbers = [11, 29, 39, 9, 33, 8, 8, 5]
    files = ("mgsm/exemplars.json", f"mgsm/mgsm_{language}.tsv")
    exemplars = json.loads((data / files[0]).read_text(encoding="utf-8"))[language]
    train = [
        {"question": shot["q"], "answer": shot["a"], "answer_number": number}
        for shot, number in zip(exemplars.values(), numbers, strict=True)
    ]
    test = [
        row | {"answer": None, "answer_number": int(row["answer"].replace(",", ""))}
        for row in tsv(data / files[1], "question", "answer")
    ]
    path = f"mgsm/{format}/mgsm_{format}_{language}.yaml"
    metrics = {"exact_match_flexible": "exact_match,flexible-extract"}
    if format == "direct":
        metrics["exact_match"] = "exact_match,remove_whitespace"
    else:
        metrics["exact_match_strict"] = "exact_match,strict-match"
    splits = {"train": train, "test": test}
    return LocalTask(f"mgsm:{format}", language, path, splits, files, metrics)
