"""MinHash signatures against the exact Jaccard similarity."""

import random

import numpy as np

from marco_jax.curation.duplicates import clusters, comparison, describe_text, grams, links

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnop", k=6)) for n in range(2000)]


def exact(one: str, two: str) -> float:
    first, second = grams(one), grams(two)
    shared = np.intersect1d(first, second).size
    return shared / (first.size + second.size - shared)


def joined(texts: list[str]) -> np.ndarray:
    """Pairs of copies among texts, by every key, as the pipeline finds them."""
    found = [describe_text(text) for text in texts]
    order = np.lexsort((np.arange(len(texts)), [-len(text) for text in texts])).argsort()
    signatures = np.stack([one.signature for one in found])
    compare = comparison(signatures, np.array([one.size for one in found]), 0.6, 0.8)
    keys = np.stack([one.keys for one in found])
    pairs = [np.zeros((0, 2), np.int64)]
    for column in range(keys.shape[1]):
        pairs += list(links(keys[:, column], order, compare))
    best, sizes = clusters(np.concatenate(pairs), order)
    assert (sizes == np.bincount(best, minlength=len(texts))[best]).all()
    return best


def test_documents_as_alike_as_four_fifths_are_found_and_others_hardly_are():
    draw = random.Random(5)
    texts, alike = [], []
    for _ in range(200):
        one = draw.choices(WORDS, k=120)
        two = list(one)
        for at in draw.sample(range(120), draw.randrange(2, 9)):
            two[at] = draw.choice(WORDS)
        texts += [" ".join(one), " ".join(two), " ".join(draw.choices(WORDS, k=120))]
        alike.append(exact(texts[-3], texts[-2]) >= 0.8)
    best = joined(texts)
    found = [best[3 * n] == best[3 * n + 1] for n in range(200)]
    assert sum(alike) > 50
    assert sum(f for f, a in zip(found, alike, strict=True) if a) >= 0.99 * sum(alike)
    assert all(best[3 * n + 2] == 3 * n + 2 for n in range(200))


def test_cut_copies_go_and_the_longest_stays():
    draw = random.Random(6)
    whole = " ".join(draw.choices(WORDS, k=200))
    texts = [whole[: len(whole) // 2], whole[len(whole) // 3 :], whole]
    assert joined(texts).tolist() == [2, 2, 2]
    assert joined(texts[::-1]).tolist() == [0, 0, 0]


def test_texts_of_two_languages_are_no_copies_unless_they_are_equal():
    text = " ".join(random.Random(7).choices(WORDS, k=50))
    one, two = describe_text(text, "az"), describe_text(text, "tr")
    assert one.digest == two.digest and not set(one.keys.tolist()) & set(two.keys.tolist())
