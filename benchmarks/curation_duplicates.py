"""Groups of near duplicates by MinHash against the exact Jaccard similarity of all pairs.

    python -m benchmarks.curation_duplicates --corpora=../shared/corpora

Real documents of the clean corpora (help pages, articles, paragraphs of encyclopedias), and copies
of some with a share of the words replaced by others of the language, 1 to 30 per cent, or cut off.
Similarities are of sets of character 5-grams; every two documents of a language are compared.
Printed, as JSON: of the pairs with a similarity of 0.8 and more the share that is in one group; of
the pairs that were linked, the share whose exact similarity and containment are both more than a
tenth below the bounds that were asked for, and the share below the bounds themselves.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import random
import time
from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.duplicates import clusters, comparison, describe_text, grams, links
from marco_jax.ngrams import normalized_words

SHARES = (0.01, 0.03, 0.06, 0.12, 0.2, 0.3)
SHORTEST = 200
# Columns of grams that are multiplied at once.
BLOCK = 20_000


def texts(corpora: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Language and text of documents, none twice."""
    seen = set()
    for path in sorted(corpora.glob("*/docs/*.jsonl")):
        for row in map(json.loads, path.open(encoding="utf-8")):
            seen.add((row.get("lang") or path.stem, row["text"]))
    for source in ("xquad", "heq", "kazqad"):
        for path in sorted((corpora / source / "mono").glob("*.txt")):
            seen.update((path.stem, line.strip()) for line in path.open(encoding="utf-8"))
    return (pair for pair in sorted(seen) if len(pair[1]) >= SHORTEST)


def planted(chosen: list[tuple[str, str]], draw: random.Random) -> Iterator[tuple[str, str]]:
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


def exact(rows: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, ...]]:
    """For each language: its rows, and the Jaccard and containment of all their pairs."""
    by_language = collections.defaultdict(list)
    for number, (code, _) in enumerate(rows):
        by_language[code].append(number)
    for numbers in by_language.values():
        sets = [grams(" ".join(normalized_words(rows[number][1]))) for number in numbers]
        known, places = np.unique(np.concatenate(sets), return_inverse=True)
        sizes = np.array([len(found) for found in sets])
        starts = np.r_[0, np.cumsum(sizes)]
        ones = np.ones(places.size, np.float32)
        table = csr_array((ones, places, starts), shape=(len(numbers), known.size)).tocsc()
        shared = np.zeros((len(numbers), len(numbers)), np.float32)
        for at in range(0, known.size, BLOCK):
            block = table[:, at : at + BLOCK].toarray()
            shared += block @ block.T
        union = sizes[:, None] + sizes[None] - shared
        inside = shared / np.maximum(1, np.minimum(sizes[:, None], sizes[None]))
        yield np.array(numbers), shared / np.maximum(1, union), inside


def found(rows: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that were linked, and the best of each document's group."""
    settings = curation_config()
    described = [describe_text(text, code) for code, text in rows]
    order = np.lexsort((np.arange(len(rows)), [-len(text) for _, text in rows])).argsort()
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


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, default=pathlib.Path("../shared/corpora"))
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--planted", type=int, default=1000)
    args = parser.parse_args()
    draw = random.Random(0)
    every = list(texts(args.corpora))
    rows = draw.sample(every, min(args.documents, len(every)))
    rows += planted(draw.sample(rows, min(args.planted, len(rows))), draw)
    begin = time.perf_counter()
    linked, best = found(rows)
    seconds = time.perf_counter() - begin
    settings = curation_config()
    known = {}
    bands: collections.Counter[str] = collections.Counter()
    joined: collections.Counter[str] = collections.Counter()
    for numbers, alike, inside in exact(rows):
        one, two = np.nonzero(np.triu(alike, 1) >= 0.5)
        for a, b in zip(one.tolist(), two.tolist(), strict=True):
            band = f"{int(alike[a, b] * 10 + 1e-6) / 10:.1f}"
            bands[band] += 1
            joined[band] += int(best[numbers[a]] == best[numbers[b]])
        place = {number: at for at, number in enumerate(numbers.tolist())}
        for a, b in linked.tolist():
            if a in place and b in place:
                at = place[a], place[b]
                known[a, b] = float(alike[at]), float(inside[at])
    near, contained = settings.near_duplicate, settings.containment
    values = [known.get(tuple(pair), (0.0, 0.0)) for pair in linked.tolist()]
    wrong = [a < near - 0.1 and b < contained - 0.1 for a, b in values]
    below = [a < near and b < contained for a, b in values]
    high = [band for band in bands if float(band) >= 0.8]
    result = {
        "documents": len(rows),
        "planted": args.planted,
        "pairs_at_least_0.8": sum(bands[band] for band in high),
        "recall_at_0.8": round(
            sum(joined[b] for b in high) / max(1, sum(bands[b] for b in high)), 4
        ),
        "in_one_group_by_similarity": {band: [joined[band], bands[band]] for band in sorted(bands)},
        "linked_pairs": len(values),
        "false_merges": round(sum(wrong) / max(1, len(wrong)), 4),
        "linked_below_the_bounds": round(sum(below) / max(1, len(below)), 4),
        "documents_per_second": round(len(rows) / seconds, 1),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
