"""Pairs from answers: which count, which are chosen, and which prompts have none."""

import math

from marco_jax.decoding.requests import Generation
from marco_jax.evaluation.ranking import ALIKE, FEW, PairWriter, Sample, rank, usable


def test_answers_that_count():
    drawn = [
        Generation((), "b"),
        Generation((), "a"),
        Generation((), "b"),
        Generation((), " \n"),
        Generation((), "cut", ended=False),
        Generation((), "broken \ufffd"),
    ]
    assert usable({"id": 1}, drawn) == Sample({"id": 1}, ("b", "a"))


def test_best_first_and_equals_as_drawn():
    samples = [Sample({"n": 1}, ("aa", "b", "cc")), Sample({"n": 2}, ()), Sample({}, ("x",))]
    ranked = rank(samples, lambda rows, answers: [len(answer) for answer in answers])
    assert ranked == [[("aa", 2.0), ("cc", 2.0), ("b", 1.0)], [], [("x", 1.0)]]


def test_what_a_scorer_will_not_score_is_left_out():
    values = {"a": math.nan, "b": math.inf, "c": 1.0, "d": 2.0}
    scorer = lambda rows, answers: [values[answer] for answer in answers]  # noqa: E731
    assert rank([Sample({}, tuple("abcd"))], scorer) == [[("d", 2.0), ("c", 1.0)]]


def test_a_pair_needs_two_answers_and_a_margin():
    write = PairWriter(least_margin=1.0)
    row = {"id": 3, "language": "kk", "messages": [1], "conversations": [2], "prompt": "old"}
    record = {"row": row, "prompt": ["new"], "ranked": [["a", 3.0], ["b", 2.5], ["c", 2.0]]}
    assert write(record) == {
        "id": 3,
        "language": "kk",
        "prompt": ["new"],
        "chosen": "a",
        "rejected": "c",
        "chosen_score": 3.0,
        "rejected_score": 2.0,
        "margin": 1.0,
    }
    assert write(record | {"ranked": [["a", 3.0]]}) is None
    assert write(record | {"ranked": [["a", 3.0], ["b", 2.5]]}) is None
    assert PairWriter(0.0)(record | {"ranked": [["a", 3.0], ["b", 3.0]]}) is None
    assert (write.pairs, write.without) == (1, {FEW: 1, ALIKE: 1})
    assert write.summary() == f"1 pairs, 1 prompts with {FEW}, 1 prompts with {ALIKE}"
