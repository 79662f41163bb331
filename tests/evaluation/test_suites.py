"""Requests and metrics of each kind of task, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.decoding.requests import Generation, Score
from marco_jax.evaluation.generation_suites import GenerationSuite, Judge, Question
from marco_jax.evaluation.suites import (
    ChoiceItem,
    ChoiceSuite,
    RollingSuite,
    rolling_windows,
)


def test_bits_per_byte_by_hand(byte_tokenizer):
    suite = RollingSuite.build(byte_tokenizer, ["abcd", "", "қ"], max_length=100)
    assert suite.examples == 2
    # 4 bytes at 1 nat each, 2 bytes at 3 bits in all.
    answers = [Score(-4.0, False), Score(-3 * math.log(2), False)]
    estimate = suite.estimates(answers)["bits_per_byte"]
    assert estimate.value == pytest.approx((4 / math.log(2) + 3) / 6)


def test_bits_per_byte_of_a_uniform_model_is_eight(byte_tokenizer, uniform_bits):
    suite = RollingSuite.build(byte_tokenizer, ["қазақша мәтін", "नेपाली"], max_length=7)
    answers = [Score(uniform_bits * len(r.continuation), False) for r in suite.requests]
    assert suite.estimates(answers)["bits_per_byte"].value == pytest.approx(8)


def test_windows_of_a_long_text():
    windows = rolling_windows([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], prefix_id=0, max_length=4)
    assert [(list(w.context), list(w.continuation)) for w in windows] == [
        ([0], [1, 2, 3, 4]),
        ([4], [5, 6, 7, 8]),
        ([6, 7, 8], [9, 10]),
    ]


@given(st.lists(st.integers(1, 99), min_size=1, max_size=60), st.integers(1, 20))
def test_windows_predict_every_token_once_and_fit(ids, max_length):
    windows = rolling_windows(ids, 0, max_length)
    assert [token for window in windows for token in window.continuation] == ids
    for window in windows:
        assert len(window.context) + len(window.continuation) <= max_length + 1
    for window in windows[1:]:
        assert len(window.context) + len(window.continuation) == max_length + 1


@pytest.fixture
def choice(byte_tokenizer):
    items = [ChoiceItem("q", ("aa", "bbbb"), 1), ChoiceItem("r", ("bbbb", "aa"), 1)]
    return ChoiceSuite.build(byte_tokenizer, items)


def _scores(*logprobs):
    return [Score(value, False) for value in logprobs]


def test_choice_metrics_by_hand(choice):
    assert [bytes(r.continuation).decode() for r in choice.requests] == [
        " aa", " bbbb", " bbbb", " aa", " aa", " bbbb",
    ]  # fmt: skip
    # First item: sums pick 0, per byte picks 1 (-3/2 < -4/4), gains over alone pick 1.
    # Second: sums pick 1 (-1 > -2), per byte 0 and 1 tie at -0.5: first; gains pick 0.
    estimates = choice.estimates(_scores(-3, -4, -2, -1, -2, -9))
    assert {name: estimate.value for name, estimate in estimates.items()} == {
        "accuracy": 0.5,
        "accuracy_norm": 0.5,
        "accuracy_pmi": 0.5,
    }
    assert estimates["accuracy"].stderr == pytest.approx(0.5)


def test_standard_error_takes_clusters_as_its_unit(byte_tokenizer):
    def estimate(cluster_of):
        items = [ChoiceItem(f"q{n}", ("a", "b"), 0, cluster=cluster_of(n)) for n in range(4)]
        suite = ChoiceSuite.build(byte_tokenizer, items)
        # The first option wins in items 0 and 2.
        scores = [-1, -2, -2, -1, -1, -2, -2, -1, 0, 0]
        return suite.estimates(_scores(*scores))["accuracy"]

    assert estimate(lambda n: None).stderr == pytest.approx(math.sqrt(1 / 3 / 4))
    # Each pair of neighbours holds one right answer: no spread between clusters.
    assert estimate(lambda n: str(n // 2)).stderr == 0
    assert estimate(lambda n: str(n % 2)).stderr == pytest.approx(0.5)


def test_of_equals_the_first_counts(choice):
    assert choice.estimates(_scores(-1, -1, -1, -1, -1, -1))["accuracy"].value == 0


def test_scores_that_are_not_numbers_give_no_accuracy(choice):
    estimate = choice.estimates(_scores(math.nan, -1, -1, -1, -1, -1))["accuracy"]
    assert math.isnan(estimate.value)


def test_options_are_scored_once_after_each_premise(choice, byte_tokenizer):
    assert choice.baselines == {("", " aa"): 4, ("", " bbbb"): 5}
    items = [ChoiceItem(f"p {n}", ("aa", "bbbb"), 0, premise="p") for n in range(2)]
    suite = ChoiceSuite.build(byte_tokenizer, items)
    assert len(suite.requests) == 6
    assert [bytes(suite.requests[n].context).decode() for n in (0, 4, 5)] == ["p 0", "p", "p"]


def test_generation_is_stripped_and_compared(byte_tokenizer):
    questions = [Question("p", ("hello there",)), Question("q", ("bye now",))]
    suite = GenerationSuite.build(byte_tokenizer, questions, Judge(("chrf++",)))
    assert suite.requests[0].stop == ("\n",)
    answers = [Generation((), " hello there "), Generation((), " bye now")]
    assert suite.estimates(answers)["chrf++"].value == pytest.approx(100)
