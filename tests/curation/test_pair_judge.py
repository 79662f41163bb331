"""A judge that is trained on pairs tells their translations from wrong pairs of each kind."""

import json
import pickle
import random

import pytest

from marco_jax.curation.pair_judge import PairJudge
from marco_jax.curation.transliteration import consonants

DEFECTS = ("misaligned", "longer", "shorter", "swapped", "scrambled")


class _Languages:
    """Two made languages, whose sentences have a verb, a few nouns and a full stop."""

    def __init__(self, alphabets=("abcdefghi", "klmnopqrs"), words=150, seed=1):
        self._draw = random.Random(seed)
        self._words = [tuple(self._word(alphabet) for alphabet in alphabets) for _ in range(words)]

    def _word(self, alphabet):
        return "".join(self._draw.choices(alphabet, k=self._draw.randint(4, 7)))

    def pair(self):
        chosen = self._draw.sample(self._words, self._draw.randint(6, 12))
        other = list(chosen)
        self._draw.shuffle(other)
        return " ".join(w for w, _ in chosen) + ".", " ".join(w for _, w in other) + "."

    def damaged(self, kind):
        source, target = self.pair()
        if kind == "misaligned":
            return source, self.pair()[1]
        if kind == "longer":
            return source, f"{target} {self.pair()[1]}"
        if kind == "shorter":
            return " ".join(source.split()[: len(source.split()) // 2]), target
        if kind == "swapped":
            return target, source
        words = ["".join(self._draw.sample(word, len(word))) for word in target.split()]
        return source, " ".join(words)


@pytest.fixture(scope="module")
def languages():
    return _Languages()


@pytest.fixture(scope="module")
def noisy(languages):
    """1,200 pairs, of which a quarter is wrong."""
    return [
        languages.damaged(DEFECTS[n // 4 % len(DEFECTS)]) if n % 4 == 0 else languages.pair()
        for n in range(1200)
    ]


@pytest.fixture(scope="module")
def judge(noisy):
    return PairJudge.train(noisy, ("en", "de"))


def _share_kept(judge, pairs):
    return sum(judge.similarity(*pair) >= 0.5 for pair in pairs) / len(pairs)


def test_good_pairs_are_kept(judge, languages):
    assert judge.kind == "lexicon" and judge.count == 1200
    assert _share_kept(judge, [languages.pair() for _ in range(100)]) >= 0.9


@pytest.mark.parametrize("kind", DEFECTS)
def test_each_defect_is_found(judge, languages, kind):
    assert _share_kept(judge, [languages.damaged(kind) for _ in range(60)]) <= 0.1


def test_the_share_of_wrong_pairs_is_estimated(judge):
    assert 0.12 <= judge.wrong <= 0.4


def test_the_order_of_the_pairs_does_not_matter_and_json_keeps_the_judge(judge, noisy):
    again = PairJudge.train(noisy[::-1], ("en", "de"))
    read = PairJudge.from_json(json.loads(json.dumps(judge.to_json())))
    copies = (again, read, pickle.loads(pickle.dumps(judge)))
    for pair in noisy[:40]:
        value = judge.similarity(*pair)
        assert 0 <= value <= 1
        assert all(copy.similarity(*pair) == value for copy in copies)


def test_few_pairs_are_judged_by_their_surface():
    some = _Languages(seed=3)
    pairs = [some.pair() for _ in range(100)]
    judge = PairJudge.train(pairs, ("en", "de"))
    assert judge.kind == "surface"
    assert _share_kept(judge, pairs) >= 0.8
    assert _share_kept(judge, [some.damaged("longer") for _ in range(40)]) <= 0.3
    for few in ([], pairs[:10]):
        judge = PairJudge.train(few, ("en", "de"))
        assert judge.kind == "surface" and judge.count == len(few)
        assert judge.similarity("A short text.", "Ein Text.") >= 0.5
        assert judge.similarity("A short text.", "Ein Text. " * 20) < 0.5


def test_given_pairs_make_up_for_few(languages):
    pairs = [languages.pair() for _ in range(60)]
    given = [languages.pair() for _ in range(400)]
    judge = PairJudge.train(pairs, ("en", "de"), given)
    assert judge.kind == "lexicon" and judge.count == 460
    assert _share_kept(judge, [languages.damaged("misaligned") for _ in range(60)]) <= 0.2


def test_a_side_in_the_script_of_the_other_column_is_rejected():
    some = _Languages(("abcdefghi", "абвгдежзи"), seed=4)
    judge = PairJudge.train([some.pair() for _ in range(200)], ("en", "kk"))
    source, target = some.pair()
    assert judge.similarity(target, source) == 0.0
    assert judge.similarity(source, source[:9]) == 0.0


@pytest.mark.parametrize("name", ["Лондон", "לונדון", "لندن", "लन्डन", "ロンドン", "런던"])
def test_a_name_has_the_same_consonants_in_every_script(name):
    assert consonants(name) == consonants("London") == "LNTN"
