"""Copies are found as exact comparison finds them, and one that stays is near each that goes."""

import random

import numpy as np
import pytest

from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.connected_components import EDGE, ConnectedComponents
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.exact_duplicates import ExactDuplicates, HostCap
from marco_jax.curation.near_duplicates import NearDuplicates, decide_group
from marco_jax.curation.shingles import ShingledText, candidate_keys, folded, is_copy, similarity

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnop", k=6)) for n in range(2000)]


def documents(texts: list[str]) -> list[RawDocument]:
    return [RawDocument(str(n), text, "en", origin=n + 1) for n, text in enumerate(texts)]


def jaccard(one: str, two: str) -> float:
    return similarity(ShingledText(folded(one)), ShingledText(folded(two)))[0]


def instead(found: dict) -> dict[int, int]:
    """Which document stays in the place of each that goes."""
    return {int(row["id"]): int(row["reason"].split()[-1]) for row in found["rejected"]}


def test_documents_as_alike_as_four_fifths_are_found_and_others_stay(run):
    draw = random.Random(5)
    texts, alike = [], []
    for _ in range(60):
        one = draw.choices(WORDS, k=120)
        two = list(one)
        for at in draw.sample(range(120), draw.randrange(2, 9)):
            two[at] = draw.choice(WORDS)
        texts += [" ".join(one), " ".join(two), " ".join(draw.choices(WORDS, k=120))]
        alike.append(jaccard(texts[-3], texts[-2]))
    gone = instead(run(NearDuplicates(), documents(texts)))
    assert sum(value >= 0.8 for value in alike) > 20
    for number, value in enumerate(alike):
        pair = {3 * number, 3 * number + 1}
        found = [one for one in pair if one in gone]
        assert len(found) == (1 if value >= 0.8 else len(found))
        assert all(gone[one] in pair for one in found)
    assert not any(number % 3 == 2 for number in gone)


def test_cut_copies_go_and_the_longest_stays_whatever_the_order_and_the_parts(run, tmp_path):
    draw = random.Random(6)
    whole = " ".join(draw.choices(WORDS, k=200))
    texts = [whole[: len(whole) // 2], whole[len(whole) // 3 :], whole]
    assert instead(run(NearDuplicates(), documents(texts))) == {0: 2, 1: 2}
    stored = NearDuplicates(store=BlobStore(str(tmp_path / "blobs")), parts=3)
    found = run(stored, documents(texts[::-1]))
    assert instead(found) == {1: 0, 2: 0}
    assert [row["cluster"] for row in found["kept"]] == [3]


def test_each_version_that_goes_is_near_the_one_that_stays(run):
    draw = random.Random(7)
    versions = [draw.choices(WORDS, k=200)]
    for _ in range(12):
        versions.append(list(versions[-1]))
        for at in draw.sample(range(200), 24):
            versions[-1][at] = draw.choice(WORDS)
    texts = [" ".join(version) for version in versions]
    assert jaccard(texts[0], texts[1]) > 0.6 > 0.3 > jaccard(texts[0], texts[-1])
    gone = instead(run(NearDuplicates(), documents(texts)))
    assert 4 <= len(gone) <= 9
    assert all(jaccard(texts[one], texts[other]) >= 0.6 for one, other in gone.items())
    assert not set(gone) & set(gone.values())


def test_long_texts_without_a_common_phrase_are_no_copies():
    # From so few words that nearly every n-gram of five letters is in both.
    draw = random.Random(8)
    letters = ["".join(draw.choices("abc", k=3)) for _ in range(30)]
    one, two = (ShingledText(" ".join(draw.choices(letters, k=20_000))) for _ in range(2))
    part = ShingledText(one.text[: len(one.text) // 3])
    assert similarity(one, two)[0] > 0.9
    assert not is_copy(one, two, 0.6, 0.8)
    assert not is_copy(two, part, 0.6, 0.8)
    assert is_copy(one, part, 0.6, 0.8)


def test_texts_of_two_languages_share_no_key():
    text = " ".join(random.Random(7).choices(WORDS, k=50))
    keys = [set(candidate_keys(text, code).tolist()) for code in ("az", "tr")]
    assert len(keys[0]) == 42 and not keys[0] & keys[1]


def test_exact_copies_differ_in_case_and_punctuation_alone(run):
    texts = ["A river, a bridge.", "a river a bridge", "A RIVER - a bridge!!", "a river"]
    found = run(ExactDuplicates(), documents(texts))
    assert instead(found) == {0: 2, 1: 2}
    assert sorted((row["id"], row.get("cluster", 1)) for row in found["kept"]) == [
        ("2", 3),
        ("3", 1),
    ]
    same = run(ExactDuplicates(parts=2), documents(texts)[::-1])
    assert instead(same) == instead(found)


def test_a_host_keeps_so_many_documents(run):
    rows = [
        RawDocument(str(n), f"text {n}", url=f"https://www.a{n % 2}.example/{n}", origin=n + 1)
        for n in range(20)
    ] + [RawDocument(f"none{n}", f"text {n}", origin=n + 50) for n in range(5)]
    found = run(HostCap(3), rows)
    assert len(found["kept"]) == 3 + 3 + 5 and len(found["rejected"]) == 14
    kept = {row["id"] for row in found["kept"]}
    assert kept == {row["id"] for row in run(HostCap(3, parts=3), rows[::-1])["kept"]}


@pytest.mark.parametrize("seed", [1, 2])
def test_components_are_those_of_another_library(run, seed):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    draw = np.random.default_rng(seed)
    nodes = draw.integers(1, 1 << 64, 500, dtype=np.uint64)
    first = np.r_[draw.integers(0, 500, 260), np.arange(30)]
    second = np.r_[draw.integers(0, 500, 260), np.arange(1, 31)]
    first, second = first[first != second], second[first != second]
    edges = np.empty(first.size, EDGE)
    edges["node"], edges["other"] = nodes[first], nodes[second]
    tables = run(ConnectedComponents(BlobStore(), 4), [edges[:100], edges[100:]], outputs=())
    centres = {node: centre for table in tables for node, centre in table}
    graph = coo_array((np.ones(first.size), (first, second)), shape=(500, 500))
    _, labels = connected_components(graph, directed=False)
    assert np.bincount(labels).max() > 30
    for label in range(labels.max() + 1):
        members = nodes[labels == label].tolist()
        assert {centres.get(node, node) for node in members} == {min(members)}


def test_a_group_keeps_the_best_and_what_is_not_near_it():
    # 1 is near 2, and 2 near 3: rows of worse, better, lengths, clusters, id of the better.
    records = [[2, 1, 90, 100, 1, 4, "one"], [3, 2, 80, 90, 5, 1, "two"]]
    assert dict(decide_group(records)) == {2: "one", 1: 5}
    records.append([3, 1, 80, 100, 5, 4, "one"])
    assert dict(decide_group(records)) == {2: "one", 3: "one", 1: 10}
