"""Answers are rewarded while others are sampled, each with its own record."""

import threading

import numpy as np
import pytest

from marco_jax.decoding.requests import Generation
from marco_jax.reinforcement.judging import Judging
from marco_jax.reinforcement.rewards import Rewards


def rewards(*scorers):
    names = tuple(f"scorer{n}" for n in range(len(scorers)))
    return Rewards(names, (1.0,) * len(scorers), scorers)


@pytest.mark.parametrize("count", [1, 64, 150])
def test_each_answer_has_its_own_scores_whichever_ends_first(count):
    seen = []

    def number(rows, answers):
        seen.append(len(answers))
        return [row["n"] for row in rows]

    def size(rows, answers):
        return [len(answer) for answer in answers]

    judging = Judging(rewards(number, size), [{"n": n} for n in range(count)])
    for n in np.random.default_rng(0).permutation(count).tolist():
        judging.take(n, Generation((), "x" * n))
    scores = judging.scores()
    assert scores.tolist() == [[n, n] for n in range(count)]
    assert sum(seen) == count


def test_scorers_run_while_others_are_sampled():
    started = threading.Event()

    def waits(rows, answers):
        started.set()
        return [1.0] * len(answers)

    judging = Judging(rewards(waits), [{}] * 65)
    for n in range(64):
        judging.take(n, Generation((), "x"))
    assert started.wait(10)
    judging.take(64, Generation((), "x"))
    assert judging.scores().sum() == 65


def test_a_scorer_that_fails_is_named():
    def fails(rows, answers):
        raise KeyError("field")

    judging = Judging(rewards(fails), [{}])
    judging.take(0, Generation((), "x"))
    with pytest.raises(ValueError, match="grpo.rewards, scorer0: the scorer fails: KeyError"):
        judging.scores()
