"""The breakdown of a run's time, on a clock that the test moves."""

import itertools

from marco_jax.training.clock import CHECKPOINT, EVALUATION, Clock


class Hand:
    """A clock's hand."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_steps_are_timed_without_what_stands_between_them():
    hand = Hand()
    clock = Clock(hand)

    def batches():
        for number in range(4):
            hand.seconds += 0.5  # reading
            yield number

    for _ in itertools.islice(clock.waiting(batches()), 4):
        hand.seconds += 2.0  # computing
    with clock.part(EVALUATION):
        hand.seconds += 10.0
    with clock.part(CHECKPOINT):
        hand.seconds += 5.0
    row = clock.lap(4)
    assert row["step_seconds"] == 2.5
    assert row["input_seconds"] == 0.5
    assert row["evaluation_seconds"] == 10.0
    assert row["checkpoint_seconds"] == 5.0
    assert row["evaluation_share"] == 10.0 / 25.0


def test_a_lap_begins_where_the_last_one_ended():
    hand = Hand()
    clock = Clock(hand)
    with clock.part(EVALUATION):
        hand.seconds += 3.0
    clock.lap(1)
    hand.seconds += 8.0
    row = clock.lap(2)
    assert row["step_seconds"] == 4.0
    assert row["evaluation_seconds"] == 3.0  # of the run, not of the lap
