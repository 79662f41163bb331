"""Finds benchmark items whose text occurs in a corpus: `marco eval --contamination`."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from marco_jax.data.corpus import Corpus
from marco_jax.data.texts import TRAIN, Document
from marco_jax.evaluation.benchmark_tasks import BenchmarkTask
from marco_jax.evaluation.benchmarks import prompts
from marco_jax.evaluation.benchmarks.source_files import split_pair
from marco_jax.ngrams import CHARACTERS, WORDS, NgramIndex

_log = logging.getLogger(__name__)

# At most so many hits are written out; counts cover all.
_HITS = 1000
# Documents per call of the n-gram index.
_BLOCK = 256


@dataclasses.dataclass
class Overlap:
    """Contamination counts of one benchmark in one language.

    Attributes:
        items: number of items.
        checked: number of items with a text of at least one n-gram.
        hit: indices of the items that share an n-gram with a document.
        sources: by mixture source, how many items share an n-gram with its documents.
    """

    task: str
    language: str
    items: int = 0
    checked: int = 0
    hit: set[int] = dataclasses.field(default_factory=set)
    sources: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def to_row(self) -> dict[str, Any]:
        """Converts the counts to a JSON object."""
        return {
            "task": self.task,
            "language": self.language,
            "items": self.items,
            "checked": self.checked,
            "contaminated": len(self.hit),
            "share": len(self.hit) / self.items if self.items else 0.0,
            "by_source": dict(sorted(self.sources.items())),
        }


def contamination(
    corpus: Corpus,
    tasks: Sequence[str],
    data_dir: str,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Compares the training documents of a corpus with the items of benchmarks.

    An item counts as contaminated if a training document shares an n-gram with one of its texts
    (question, passage, an option): 13 words, or more characters in languages without spaces.

    All sources of the corpus's training split are searched. `tasks` are benchmarks as `marco eval`
    names them, with files in `data_dir`; `languages` are codes, None for all that have files;
    `limit` bounds the items per language and subject.

    Returns:
        JSON-ready: `overlap`, one row per benchmark and language; `documents`, by source how many
        were read and how many share an n-gram; `hits`, the first 1,000 with the shared n-gram.

    Raises:
        ValueError: a task is unknown, or a file is damaged.
        FileNotFoundError: a benchmark has no files.
    """
    # `entries` holds the item of each key of the index.
    index, overlaps, entries = NgramIndex(), [], []
    for overlap, number, location, texts, unit in _items(tasks, data_dir, languages, limit):
        if not overlaps or overlaps[-1] is not overlap:
            overlaps.append(overlap)
        overlap.items += 1
        overlap.checked += index.add(len(entries), texts, unit)
        entries.append((overlap, number, location))
    _log.info(f"{len(entries):,} items of {len(overlaps)} benchmarks and languages")
    documents: dict[str, dict[str, int]] = {}
    hits: list[dict[str, str]] = []
    for source in corpus.sources():
        counts = documents[source] = {"documents": 0, "contaminated": 0}
        seen: set[int] = set()
        for document, found in _search(index, corpus.documents(source, TRAIN)):
            counts["documents"] += 1
            counts["contaminated"] += bool(found)
            for key, ngram in found.items():
                overlap, number, location = entries[key]
                overlap.hit.add(number)
                if key not in seen:
                    seen.add(key)
                    overlap.sources[source] += 1
                if len(hits) < _HITS:
                    names = {"task": overlap.task, "language": overlap.language, "item": location}
                    hits.append(
                        {**names, "source": source, "document": document.key, "shared": ngram}
                    )
        _log.info(
            f"{source}: {counts['contaminated']:,} of {counts['documents']:,} documents share an "
            "n-gram"
        )
    return {
        "words": WORDS,
        "characters": CHARACTERS,
        "overlap": [overlap.to_row() for overlap in overlaps],
        "documents": documents,
        "hits": hits,
    }


def _search(
    index: NgramIndex, documents: Iterable[Document]
) -> Iterator[tuple[Document, dict[int, str]]]:
    """Yields each document with the n-grams it shares, by item; searches in blocks."""
    documents = iter(documents)
    while block := list(itertools.islice(documents, _BLOCK)):
        yield from zip(block, index.hits([document.text for document in block]), strict=True)


def _items(
    tasks: Sequence[str], data_dir: str, languages: Sequence[str] | None, limit: int | None
) -> Iterator[tuple[Overlap, int, str, list[str], str]]:
    for name in tasks:
        task = BenchmarkTask.parse(name)
        found = task.languages(data_dir, languages)
        if not found:
            raise FileNotFoundError(
                f"{name} has no files below data_dir {data_dir} in the requested languages"
            )
        for language in found:
            overlap = Overlap(name, language)
            # A pair has texts in both languages: count characters if either has no spaces.
            sides = split_pair(task.benchmark, language)
            unit = next((side for side in sides if side in CHARACTERS), sides[0])
            asked = prompts(
                task.benchmark.name, language, data_dir, shots=0, limit=limit, split=task.split
            )
            for number, prompt in enumerate(asked):
                yield overlap, number, prompt.location, list(_texts(prompt.fields)), unit


def _texts(value: object) -> Iterator[str]:
    """Yields all strings of a nested record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | Sequence):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def format_contamination(found: Mapping[str, Any]) -> str:
    """Formats a contamination report as a table."""
    rows = [f"{'benchmark':<24}{'language':<12}{'items':>9}{'checked':>9}{'in corpus':>11}{'%':>8}"]
    rows += [
        f"{row['task']:<24}{row['language']:<12}{row['items']:>9,}{row['checked']:>9,}"
        f"{row['contaminated']:>11,}{100 * row['share']:>8.2f}"
        for row in found["overlap"]
    ]
    total = sum(counts["documents"] for counts in found["documents"].values())
    shared = sum(counts["contaminated"] for counts in found["documents"].values())
    rows.append(
        f"{shared:,} of {total:,} training documents share {found['words']} words with an item"
    )
    return "\n".join(rows)
