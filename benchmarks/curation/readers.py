"""The text that is measured on: clean corpora, and a constructed sample of dirty pages."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

CORPORA = pathlib.Path("../shared/corpora")
SAMPLE = "dirty_web_constructed/dirty_web_constructed.jsonl"
# The benchmark items that the dirty sample holds.
ITEMS = "dirty_web_constructed/eval_items.jsonl"


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def lines(path: pathlib.Path) -> list[str]:
    """Lines of a text without white space around them; none where there is no such file."""
    return [line.strip() for line in path.open(encoding="utf-8")] if path.exists() else []


def clean_documents(corpora: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Languages and texts of help pages and articles."""
    for path in sorted(corpora.glob("*/docs/*.jsonl")):
        for row in rows(path):
            yield row.get("lang") or path.stem, row["text"]
