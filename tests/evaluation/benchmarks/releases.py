"""What the small releases of `exam_releases.py` and `text_releases.py` are made of."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Release:
    """A benchmark's items in its layouts.

    Attributes:
        task: the benchmark.
        language: a language of it.
        asks: how the context of the first prompt ends.
        answer: its right choices, or its references.
        authors: the authors' files, text by path below the benchmark's folder.
        hub: rows of the Hugging Face dataset by (config, split).
        tfds: the TFDS dataset: name, and rows by split; its features are in `test_releases.py`.
        shots: shots to ask for.
    """

    task: str
    language: str
    asks: str
    answer: tuple
    authors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hub: Mapping[tuple[str, str], Rows] = dataclasses.field(default_factory=dict)
    tfds: tuple[str, Mapping[str, Rows]] | None = None
    shots: int = 1


def jsonl(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows: Rows, delimiter: str = ",", header: bool = True) -> str:
    """A table as Python's csv module writes it."""
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], delimiter=delimiter, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def plain_tsv(rows: Rows, header: bool = True) -> str:
    """A table in which quotes are part of the text."""
    lines = [rows[0], *(row.values() for row in rows)] if header else [r.values() for r in rows]
    return "".join("\t".join(map(str, line)) + "\n" for line in lines)


def squad(rows: Rows) -> str:
    """A SQuAD 1.1 file."""
    articles = []
    for row in rows:
        answers = [
            {"text": text, "answer_start": start}
            for text, start in zip(*row["answers"].values(), strict=True)
        ]
        question = {"id": row["id"], "question": row["question"], "answers": answers}
        paragraph = {"context": row["context"], "qas": [question]}
        articles.append({"title": row["title"], "paragraphs": [paragraph]})
    return json.dumps({"data": articles, "version": "1.1"}, ensure_ascii=False)
