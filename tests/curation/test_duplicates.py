"""MinHash bands against the exact Jaccard similarity."""

import random

from marco_jax.curation.duplicates import clusters, describe, jaccard, links


def test_documents_as_alike_as_four_fifths_share_a_band_and_others_hardly_do():
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(2000)]
    found = alike = false = 0
    for _ in range(200):
        one = draw.choices(words, k=120)
        two = list(one)
        for at in draw.sample(range(10, 120), draw.randrange(2, 9)):
            two[at] = draw.choice(words)
        (first, keys), (second, others) = describe("a", " ".join(one)), describe("b", " ".join(two))
        other, unlike = describe("c", " ".join(draw.choices(words, k=120)))
        # The last key is of the texts' beginning, which is the same here.
        if jaccard(first, second)[0] >= 0.8:
            alike += 1
            found += bool(set(keys[:-1]) & set(others[:-1]))
        false += bool(list(links([first, other], 0.6, 0.8))) and bool(set(keys) & set(unlike))
    assert alike > 50
    assert found / alike >= 0.99 and false == 0


def test_a_group_keeps_its_longest_whatever_the_order():
    texts = {
        "b": "one two three four five six seven",
        "a": "one two three four five six seven eight",
    }
    members = [describe(key, text)[0] for key, text in texts.items()]
    for order in (members, members[::-1]):
        assert clusters(list(links(order, 0.6, 0.8)))["b"][0] == "a"
