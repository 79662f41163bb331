"""Differences of two models on the same items: values, errors and p-values."""

import math

import numpy as np
import pytest

from marco_jax.evaluation import metrics
from marco_jax.evaluation.outcomes import Measured, Outcomes
from marco_jax.evaluation.paired_differences import mean_stderr, paired_differences


def right(values, items=None, **columns):
    """Outcomes of one metric, a mean of these values."""
    items = items or [f"item {n}" for n in range(len(values))]
    return Outcomes(items, {"accuracy": Measured.mean(values)}, **columns)


def compare(first, second, language="kk"):
    rows = paired_differences({("t", language): first}, {("t", language): second})
    return next(row for row in rows if row.language == language)


def draws(count, seed, agree=0.9):
    """Right and wrong answers of two models that agree on most items."""
    random = np.random.default_rng(seed)
    ours = random.integers(0, 2, count)
    theirs = np.where(random.random(count) < agree, ours, random.integers(0, 2, count))
    return ours.astype(float), theirs.astype(float)


def test_the_error_is_that_of_the_differences_by_hand():
    found = compare(right([1, 0, 1, 1]), right([1, 1, 1, 0]))
    assert (found.first, found.second, found.difference, found.items) == (0.75, 0.75, 0, 4)
    # Differences 0, 1, 0, -1.
    assert found.stderr == pytest.approx(math.sqrt(2 / 3 / 4))
    assert found.p_value == 1


def test_a_paired_error_is_smaller_than_an_unpaired_one_and_true():
    """Over many draws of the items, differences spread as their errors say."""
    rows = [compare(right(a), right(b)) for a, b in (draws(300, seed) for seed in range(200))]
    spread = np.std([row.difference for row in rows], ddof=1)
    assert np.mean([row.stderr for row in rows]) == pytest.approx(spread, rel=0.15)
    a, b = draws(300, 0)
    unpaired = math.hypot(metrics.mean(a).stderr, metrics.mean(b).stderr)
    assert compare(right(a), right(b)).stderr < unpaired / 2


def test_p_values_of_equal_models_are_uniform():
    rows = [compare(right(a), right(b)) for a, b in (draws(300, seed) for seed in range(200))]
    assert np.mean([row.p_value < 0.05 for row in rows]) < 0.1
    # Few items differ, so p-values are discrete and a little too large.
    assert 0.25 < np.mean([row.p_value < 0.5 for row in rows]) < 0.6


def test_few_differing_items_have_the_p_value_of_mcnemars_exact_test():
    first, second = [0.0] * 20, [1.0] * 6 + [0.0] * 14
    # Six items, all in favour of one side.
    assert compare(right(first), right(second)).p_value == pytest.approx(2 / 2**6, abs=0.006)
    many = [1.0] * 3000
    assert compare(right([0.0] * 3000), right(many)).p_value < 1e-9


def test_only_items_of_both_count_whatever_their_order():
    first = right([1, 0, 0], ["a", "b", "c"])
    second = right([1, 1, 0, 1], ["d", "c", "b", "a"])
    found = compare(first, second)
    assert (found.items, found.first, found.second) == (
        3,
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    )
    # An item that occurs twice is compared occurrence by occurrence.
    twice = compare(right([1, 0], ["a", "a"]), right([0, 0], ["a", "a"]))
    assert (twice.items, twice.difference) == (2, -0.5)


def test_tasks_metrics_and_languages_of_one_side_are_left_out():
    first = {("t", "kk"): right([1, 0]), ("t", "ne"): right([1, 1]), ("u", "kk"): right([1])}
    second = {("t", "kk"): right([1, 1])}
    rows = paired_differences(first, second)
    assert [(row.task, row.language) for row in rows] == [("t", "kk"), ("t", "all"), ("t", "low")]


def test_clusters_are_the_units_of_items_that_depend_on_one_another():
    a, b = [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]
    alone = compare(right(a), right(b))
    together = compare(right(a, clusters=["x", "x", "y", "y"]), right(b, clusters=["x"] * 4))
    assert together.stderr > alone.stderr
    assert together.stderr == pytest.approx(0.5)


def test_the_spread_within_subjects_is_that_of_a_mean_over_subjects():
    """Subjects differ, items of one do not: a difference without error."""
    parts = ["easy"] * 3 + ["hard"] * 3
    a, b = [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]
    assert compare(right(a, parts=parts), right(b, parts=parts)).stderr == 0


def test_translations_of_a_question_are_one_unit_in_means():
    """Two languages with the same outcomes tell no more than one of them."""
    a, b = draws(100, 3)
    questions = [f"q{n}" for n in range(100)]

    def rows(asked):
        sides = [
            {("t", code): right(values, questions=asked) for code in ("kk", "ne")}
            for values in (a, b)
        ]
        return {row.language: row for row in paired_differences(*sides)}

    aligned, apart = rows(questions), rows(())
    assert aligned["all"].stderr == pytest.approx(aligned["kk"].stderr)
    assert aligned["all"].p_value == pytest.approx(aligned["kk"].p_value, abs=0.03)
    assert apart["all"].stderr == pytest.approx(apart["kk"].stderr / math.sqrt(2), rel=0.02)


def test_the_error_of_a_mean_over_translations():
    a, _ = draws(100, 3)
    questions = [f"q{n}" for n in range(100)]
    members = [right(a, questions=questions), right(a, questions=questions)]
    assert mean_stderr(members, "accuracy") == pytest.approx(metrics.mean(a).stderr)
    assert mean_stderr([right(a), right(a)], "accuracy") is None


def test_bits_per_byte_are_compared_by_document():
    sizes = [10, 20, 30]

    def bits(values):
        return Outcomes(["a", "b", "c"], {"bits_per_byte": Measured.ratio(values, sizes)})

    found = compare(bits([20.0, 40.0, 60.0]), bits([10.0, 20.0, 30.0]))
    assert (found.first, found.second, found.stderr) == (2, 1, 0)
    found = compare(bits([20.0, 40.0, 60.0]), bits([22.0, 39.0, 61.0]))
    gains = np.array([2.0, -1.0, 1.0]) - found.difference * np.array(sizes)
    assert found.stderr == pytest.approx(math.sqrt(3 / 2 * (gains @ gains)) / 60)


REFERENCES = [f"sentence number {n} of a short text about the weather" for n in range(30)]


def translated(texts):
    counts = metrics.corpus_counts(metrics.CHRF, texts, REFERENCES).astype(float)
    items = [str(n) for n in range(len(texts))]
    return Outcomes(items, {"chrf++": Measured(metrics.CHRF, counts)})


def test_corpus_metrics_are_resampled_in_pairs():
    rough = [text.replace("weather", "whether") for text in REFERENCES]
    worse = [text.replace("short", "brief") if n % 2 else text for n, text in enumerate(rough)]
    found = compare(translated(rough), translated(worse))
    assert found.first == pytest.approx(metrics.chrf(rough, REFERENCES).value)
    assert found.second == pytest.approx(metrics.chrf(worse, REFERENCES).value)
    assert found.difference < 0
    assert 0 < found.stderr < abs(found.difference)
    assert found.p_value < 0.01
    same = compare(translated(rough), translated(rough))
    assert (same.difference, same.stderr, same.p_value) == (0, 0, 1)


def test_a_diverged_model_has_no_p_value():
    found = compare(right([1, 0]), right([math.nan, math.nan]))
    assert math.isnan(found.p_value) and found.to_row()["p_value"] is None
