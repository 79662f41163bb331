"""Groups of near-duplicates by MinHash, against the exact Jaccard similarity of all pairs.

Real documents of the clean corpora (help pages, articles, paragraphs of encyclopedias), and copies
of some with a share of the words replaced by others of the language, 1 to 30 per cent, or cut off.
Similarities are of sets of character 5-grams; every two documents of a language are compared.
Measured: of the pairs with a similarity of 0.8 and more, the share that is in one group; of the
pairs that were linked, the share whose exact similarity and containment are both more than a tenth
below the bounds that were asked for (false merges), and the share below the bounds themselves.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from benchmarks.common import Times
from benchmarks.curation.readers import clean_documents, lines
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.duplicates import clusters, comparison, describe_text, grams, links
from marco_jax.ngrams import normalized_words

SHARES = (0.01, 0.03, 0.06, 0.12, 0.2, 0.3)
SHORTEST = 200
# Columns of grams that are multiplied at once.
BLOCK = 20_000

Texts = list[tuple[str, str]]


def texts(corpora: pathlib.Path) -> Texts:
    """Language and text of documents, none twice."""
    found = {(document.language, document.text) for document in clean_documents(corpora)}
    for source in ("xquad", "heq", "kazqad"):
        for path in (corpora / source / "mono").glob("*.txt"):
            found.update((path.stem, line) for line in lines(path))
    return sorted(pair for pair in found if len(pair[1]) >= SHORTEST)


def planted(chosen: Texts, draw: random.Random) -> Iterator[tuple[str, str]]:
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
        changed = (draw.choice(words[code]) if draw.random() < share else w for w in pieces)
        yield code, " ".join(changed)


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
        table = csr_array((ones, columns, starts), shape=(len(numbers), known.size)).tocsc()
        shared = np.zeros((len(numbers), len(numbers)), np.float32)
        for at in range(0, known.size, BLOCK):
            block = table[:, at : at + BLOCK].toarray()
            shared += block @ block.T
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
        settings.near_duplicate,
        settings.containment,
    )
    keys = np.stack([one.keys for one in described])
    pairs = [p for n in range(keys.shape[1]) for p in links(keys[:, n], order, compare)]
    linked = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return linked, clusters(linked, order)[0]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Recall and false merges."""
    draw = random.Random(0)
    every = texts(args.corpora)
    documents = draw.sample(every, min(args.documents, len(every)))
    documents += planted(draw.sample(documents, min(args.planted, len(documents))), draw)
    times = Times()
    linked, best = times.call(lambda: grouped(documents))
    known: dict[tuple[int, int], tuple[float, float]] = {}
    pairs: collections.Counter[str] = collections.Counter()
    joined: collections.Counter[str] = collections.Counter()
    for numbers, alike, inside in exact(documents):
        for a, b in np.argwhere(np.triu(alike, 1) >= 0.5).tolist():
            band = f"{int(alike[a, b] * 10 + 1e-6) / 10:.1f}"
            pairs[band] += 1
            joined[band] += int(best[numbers[a]] == best[numbers[b]])
        index = {number: at for at, number in enumerate(numbers.tolist())}
        for a, b in linked.tolist():
            if a in index and b in index:
                at = index[a], index[b]
                known[a, b] = float(alike[at]), float(inside[at])
    settings = curation_config()
    bounds = np.array([settings.near_duplicate, settings.containment])
    # Documents of two languages share nothing that counts.
    values = np.array([known.get((a, b), (0.0, 0.0)) for a, b in linked.tolist()])
    high = [band for band in pairs if float(band) >= 0.8]
    total = sum(pairs[band] for band in high)
    return {
        "documents": len(documents),
        "planted": args.planted,
        "pairs_at_least_0.8": total,
        "recall_at_0.8": round(sum(joined[band] for band in high) / max(1, total), 4),
        "in_one_group_by_similarity": {band: [joined[band], pairs[band]] for band in sorted(pairs)},
        "linked_pairs": len(values),
        "false_merges": round(float((values < bounds - 0.1).all(1).mean()), 4),
        "linked_below_the_bounds": round(float((values < bounds).all(1).mean()), 4),
        "documents_per_second": round(len(documents) / times.median, 1),
    }
