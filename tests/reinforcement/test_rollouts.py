"""Batches of sampled answers: where each token is, and that nothing is lost."""

import math

import numpy as np
import pytest

from marco_jax.reinforcement.prompt_data import RolloutPrompt
from marco_jax.reinforcement.rollouts import (
    Answer,
    answer_metrics,
    batch_arrays,
    logps_of,
    pack_answers,
    read_answers,
    write_answers,
)


def answers_of(sizes, seed=0):
    """Answers with prompts of random tokens; `sizes` are of prompts and answers."""
    rng = np.random.default_rng(seed)
    found = []
    for number, (asked, said) in enumerate(sizes):
        prompt = RolloutPrompt(
            tuple(rng.integers(1, 99, asked).tolist()), {}, f"p{number}", number % 2
        )
        ids = tuple(rng.integers(1, 99, said).tolist())
        logps = tuple(rng.normal(size=said).astype(np.float32).tolist())
        gain = float(np.float32(rng.normal()))
        found.append(Answer(prompt, ids, str(number), True, {"a": 1.0}, 0.5, gain, logps))
    return found


@pytest.mark.parametrize("ways", [1, 2, 4])
def test_every_answer_is_in_the_batch_once(ways):
    rng = np.random.default_rng(ways)
    answers = answers_of([(int(a), int(b)) for a, b in rng.integers(1, 12, (30, 2))])
    arrays, positions = batch_arrays(answers, (32, 24), ways, 8, off_policy=True)
    for answer, place in zip(answers, positions, strict=True):
        asked, said = answer.prompt.ids, answer.ids
        first = place.start - len(asked) + 1
        span, own = slice(first, first + answer.size), slice(place.start, place.start + len(said))
        row = {name: array[place.row] for name, array in arrays.items()}
        assert row["tokens"][span].tolist() == [*asked, *said][:-1]
        assert row["targets"][own].tolist() == list(said)
        assert row["positions"][span].tolist() == list(range(answer.size))
        assert len({*row["segment_ids"][span]}) == 1 and row["segment_ids"][first] > 0
        assert (row["loss_weights"][own] == 1).all()
        assert not row["loss_weights"][first : place.start].any()
        assert (row["advantages"][own] == np.float32(answer.advantage)).all()
        assert row["source_ids"][first] == answer.prompt.label
    assert arrays["loss_weights"].sum() == sum(len(answer.ids) for answer in answers)
    assert (arrays["segment_ids"] > 0).sum() == sum(answer.size for answer in answers)
    assert logps_of(answers, positions, arrays["behaviour"]) == [a.logps for a in answers]
    # Each device has its filled rows first, and as many as the others.
    filled = (arrays["segment_ids"] > 0).any(1).reshape(ways, -1)
    assert (np.sort(filled, axis=1)[:, ::-1] == filled).all()
    assert np.ptp(filled.sum(1)) <= 1


def test_answers_without_an_advantage_are_in_no_loss():
    good, bad = answers_of([(3, 4), (3, 4)])
    bad = Answer(bad.prompt, bad.ids, bad.text, True)
    arrays, (_, place) = batch_arrays([good, bad], (2, 16), 1, 4, off_policy=False)
    assert arrays["loss_weights"].sum() == 4
    assert not arrays["advantages"][place.row, place.start : place.start + 4].any()
    assert "behaviour" not in arrays


def test_as_many_fit_as_is_promised():
    rng = np.random.default_rng(3)
    for _ in range(200):
        rows, length, most, longest = (int(rng.integers(1, top)) for top in (6, 64, 9, 40))
        count = rows * min(most, length // max(longest - 1, 1))
        sizes = rng.integers(1, max(longest - 1, 1) + 1, count).tolist()
        packed = pack_answers(sizes, length, most)
        assert len(packed) <= rows
        assert sorted(n for row in packed for n in row) == list(range(count))
        assert all(sum(sizes[n] for n in row) <= length and len(row) <= most for row in packed)


def test_a_file_of_answers_is_read_back_exactly(tmp_path):
    answers = answers_of([(3, 4), (2, 5), (4, 1)])
    answers[1] = Answer(answers[1].prompt, (5, 6), "cut", False, {"a": math.nan})
    prompts = [answer.prompt for answer in answers]
    path = tmp_path / "answers" / "000000.jsonl"
    assert read_answers(path, prompts, 1) == []
    write_answers(path, answers, ["x", "y"])
    found = read_answers(path, prompts, 1)
    assert [repr(answer) for answer in found] == [repr(answer) for answer in answers]
    with pytest.raises(ValueError, match="does not have the answers to this round's prompts"):
        read_answers(path, prompts[::-1], 1)


def test_metrics_are_means_of_what_was_rewarded():
    answers = answers_of([(3, 4), (3, 2), (3, 3), (3, 3)])
    answers[1] = Answer(answers[1].prompt, (5, 6), "cut", False, {"a": math.nan})
    found = answer_metrics(answers, 2, ("en", "kk"))
    assert found["reward"] == 0.5 and found["reward_a"] == 1.0
    assert found["answer_tokens"] == 3.0
    assert found["cut_share"] == found["unused_share"] == 0.25
    assert found["alike_share"] == 1.0
    assert found["reward/en"] == 0.5 and found["unused_share/kk"] == 0.5
