"""Near-duplicates that curation removes, against the exact similarity of all pairs.

    python -m benchmarks.curation.duplicates [--corpora=DIR] [--documents=5000] [--planted=1000]

Real documents of the clean corpora (help pages, articles, paragraphs of encyclopedias), and copies
of some with a share of the words replaced by others of the language, 1 to 30 per cent, or cut off.
Similarities are of sets of character 5-grams; every two documents of a language are compared.
Measured: of the pairs with a similarity of 0.8 and more, the share of which not both are kept; of
the documents that were removed, the share whose exact similarity to the one that stays, and
containment in it, are both below the bounds that were asked for (false merges). Then long documents
without a common line are put together in five languages, 10 to 300 kB, and every two are compared:
the share that counts as copies. There is nothing beside it.
"""

from __future__ import annotations

import collections
import itertools
import pathlib
import random
import tempfile
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from scipy.sparse import csr_array

from benchmarks.common import Times, print_json, read_flags
from benchmarks.curation.readers import CORPORA, clean_documents
from benchmarks.curation.readers import lines as lines_of
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.exact_duplicates import ExactDuplicates
from marco_jax.curation.near_duplicates import NearDuplicates
from marco_jax.curation.shingles import ShingledText, folded, grams, is_copy

SHARES = (0.01, 0.03, 0.06, 0.12, 0.2, 0.3)
SHORTEST = 200
# Bytes of long documents, and the languages with most text, in which they are put together.
LONG = (10_000, 30_000, 60_000, 100_000, 300_000)
LANGUAGES = 5

Texts = list[tuple[str, str]]


def texts(corpora: pathlib.Path) -> Texts:
    """Language and text of documents, none twice."""
    found = set(clean_documents(corpora))
    for source in ("xquad", "heq", "kazqad"):
        for path in (corpora / source / "mono").glob("*.txt"):
            found.update((path.stem, line) for line in lines_of(path))
    return sorted(pair for pair in found if len(pair[1]) >= SHORTEST)


def changed(chosen: Texts, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Each document with some words replaced, or without its end."""
    words = collections.defaultdict(list)
    for code, text in chosen:
        words[code] += text.split(" ")[:50]
    for number, (code, text) in enumerate(chosen):
        pieces = text.split(" ")
        if number % 4 == 3:
            yield code, text[: int(len(text) * draw.uniform(0.5, 0.95))]
            continue
        share = SHARES[number % len(SHARES)]
        replaced = (draw.choice(words[code]) if draw.random() < share else w for w in pieces)
        yield code, " ".join(replaced)


def exact(documents: Texts) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each language: its documents, and the Jaccard and containment of all their pairs."""
    by_language = collections.defaultdict(list)
    for number, (code, _) in enumerate(documents):
        by_language[code].append(number)
    for numbers in by_language.values():
        sets = [grams(folded(documents[number][1])) for number in numbers]
        known, columns = np.unique(np.concatenate(sets), return_inverse=True)
        sizes = np.array([len(found) for found in sets])
        starts = np.r_[0, np.cumsum(sizes)]
        ones = np.ones(columns.size, np.float32)
        table = csr_array((ones, columns, starts), shape=(len(numbers), known.size))
        shared = (table @ table.T).toarray()
        union = sizes[:, None] + sizes[None] - shared
        inside = shared / np.maximum(1, np.minimum(sizes[:, None], sizes[None]))
        yield np.array(numbers), shared / np.maximum(1, union), inside


def kept_instead(documents: Texts) -> dict[int, int]:
    """The documents that curation removes, each with the one that it keeps instead."""
    settings = curation_config()
    rows = [
        RawDocument(str(number), text, code, origin=number)
        for number, (code, text) in enumerate(documents)
    ]
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            unlike = pipeline | beam.Create(rows) | "exact" >> ExactDuplicates()
            near = NearDuplicates(settings.near_duplicate, settings.containment)
            removed = (unlike.rejected, (unlike.kept | "near" >> near).rejected) | beam.Flatten()
            lines = removed | beam.Map(lambda one: f"{one.id}\t{one.reason.rpartition(' ')[2]}")
            lines | beam.io.WriteToText(f"{folder}/removed")
        files = pathlib.Path(folder).glob("removed*")
        found = dict(line.split("\t") for file in files for line in lines_of(file))
    return {int(one): int(other) for one, other in found.items()}


def long_documents(corpora: pathlib.Path) -> dict[str, Any]:
    """How many pairs of long documents without a common line count as copies."""
    by_language = collections.defaultdict(dict)
    for code, text in texts(corpora):
        by_language[code] |= dict.fromkeys(text.split("\n"))
    most = sorted(by_language, key=lambda code: -sum(map(len, by_language[code])))[:LANGUAGES]
    draw, settings = random.Random(1), curation_config()
    pairs = merged = 0
    for code in most:
        rest, made = list(by_language[code]), []
        draw.shuffle(rest)
        for size in itertools.cycle(LONG):
            part: list[str] = []
            while rest and sum(map(len, part)) < size:
                part.append(rest.pop())
            if not rest:
                break
            made.append(ShingledText(folded("\n".join(part))))
        for one, two in itertools.combinations(made, 2):
            pairs += 1
            merged += is_copy(one, two, settings.near_duplicate, settings.containment)
    return {"languages": most, "pairs": pairs, "merged": merged}


def measure(corpora: pathlib.Path, documents: int, planted: int) -> dict[str, Any]:
    """Recall and false merges."""
    draw, settings = random.Random(0), curation_config()
    chosen = texts(corpora)
    chosen = draw.sample(chosen, min(documents, len(chosen)))
    chosen += changed(draw.sample(chosen, min(planted, len(chosen))), draw)
    times = Times()
    removed = times.call(lambda: kept_instead(chosen))
    pairs = joined = right = 0
    for numbers, alike, inside in exact(chosen):
        for one, two in numbers[np.argwhere(np.triu(alike, 1) >= 0.8)].tolist():
            pairs, joined = pairs + 1, joined + (one in removed or two in removed)
        near = (alike >= settings.near_duplicate) | (inside >= settings.containment)
        place = {number: at for at, number in enumerate(numbers.tolist())}
        for one, two in removed.items():
            if one in place:
                right += two in place and bool(near[place[one], place[two]])
    return {
        "pairs_at_least_0.8": pairs,
        "recall_at_0.8": round(joined / max(1, pairs), 4),
        "removed": len(removed),
        "false_merges": round(1 - right / len(removed), 4),
        "documents_per_second": round(len(chosen) / times.median, 1),
        "long_documents": long_documents(corpora),
    }


if __name__ == "__main__":
    flags = {"corpora": (CORPORA, "their folder"), "documents": (5000, "real ones")}
    flags["planted"] = (1000, "copies with other words or without their end")
    print_json(measure(**vars(read_flags(__doc__, **flags))))
