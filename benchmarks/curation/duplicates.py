"""Groups of near-duplicates by MinHash, against the exact Jaccard similarity of all pairs.

    python -m benchmarks.curation.duplicates [--corpora=DIR] [--documents=5000] [--planted=1000]

Real documents of the clean corpora (help pages, articles, paragraphs of encyclopedias), and copies
of some with a share of the words replaced by others of the language, 1 to 30 per cent, or cut off.
Similarities are of sets of character 5-grams; every two documents of a language are compared.
Measured: of the pairs with a similarity of 0.8 and more, the share that is in one group; of the
pairs that were linked, the share whose exact similarity and containment are both more than a tenth
below the bounds that were asked for (false merges). There is nothing beside it.
"""

from __future__ import annotations

import collections
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from benchmarks.common import Times, print_json, read_flags
from benchmarks.curation.readers import CORPORA, clean_documents, lines
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.duplicates import clusters, comparison, describe_text, grams, links
from marco_jax.ngrams import normalized_words

SHARES = (0.01, 0.03, 0.06, 0.12, 0.2, 0.3)
SHORTEST = 200

Texts = list[tuple[str, str]]


def texts(corpora: pathlib.Path) -> Texts:
    """Language and text of documents, none twice."""
    found = set(clean_documents(corpora))
    for source in ("xquad", "heq", "kazqad"):
        for path in (corpora / source / "mono").glob("*.txt"):
            found.update((path.stem, line) for line in lines(path))
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
        sets = [grams(" ".join(normalized_words(documents[number][1]))) for number in numbers]
        known, columns = np.unique(np.concatenate(sets), return_inverse=True)
        sizes = np.array([len(found) for found in sets])
        starts = np.r_[0, np.cumsum(sizes)]
        ones = np.ones(columns.size, np.float32)
        table = csr_array((ones, columns, starts), shape=(len(numbers), known.size))
        shared = (table @ table.T).toarray()
        union = sizes[:, None] + sizes[None] - shared
        inside = shared / np.maximum(1, np.minimum(sizes[:, None], sizes[None]))
        yield np.array(numbers), shared / np.maximum(1, union), inside


def grouped(documents: Texts) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that curation links, and the best document of each one's group."""
    settings = curation_config()
    described = [describe_text(text, code) for code, text in documents]
    lengths = [-len(text) for _, text in documents]
    order = np.lexsort((np.arange(len(documents)), lengths)).argsort()
    compare = comparison(
        np.stack([one.signature for one in described]),
        np.array([one.size for one in described]),
        *(settings.near_duplicate, settings.containment),
    )
    keys = np.stack([one.keys for one in described])
    pairs = [p for n in range(keys.shape[1]) for p in links(keys[:, n], order, compare)]
    linked = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return linked, clusters(linked, order)[0]


def measure(corpora: pathlib.Path, documents: int, planted: int) -> dict[str, Any]:
    """Recall and false merges."""
    draw, settings = random.Random(0), curation_config()
    chosen = texts(corpora)
    chosen = draw.sample(chosen, min(documents, len(chosen)))
    chosen += changed(draw.sample(chosen, min(planted, len(chosen))), draw)
    times = Times()
    linked, best = times.call(lambda: grouped(chosen))
    pairs = joined = right = 0
    for numbers, alike, inside in exact(chosen):
        a, b = numbers[np.argwhere(np.triu(alike, 1) >= 0.8)].T
        pairs, joined = pairs + len(a), joined + int((best[a] == best[b]).sum())
        near = (alike >= settings.near_duplicate - 0.1) | (inside >= settings.containment - 0.1)
        # Of the linked pairs, those of this language; two languages share nothing that counts.
        a, b = np.searchsorted(numbers, linked[np.isin(linked, numbers).all(1)]).T
        right += int(near[a, b].sum())
    return {
        "pairs_at_least_0.8": pairs,
        "recall_at_0.8": round(joined / max(1, pairs), 4),
        "linked_pairs": len(linked),
        "false_merges": round(1 - right / len(linked), 4),
        "documents_per_second": round(len(chosen) / times.median, 1),
    }


if __name__ == "__main__":
    flags = {"corpora": (CORPORA, "their folder"), "documents": (5000, "real ones")}
    flags["planted"] = (1000, "copies with other words or without their end")
    print_json(measure(**vars(read_flags(__doc__, **flags))))
