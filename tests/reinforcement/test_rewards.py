"""Rewards: what an answer is worth, and how much better it is than the others."""

import math

import numpy as np
import pytest

from marco_jax.reinforcement.rewards import Rewards, advantages


def test_scorers_are_added_up_with_their_weights():
    rewards = Rewards.of("chrf++=0.01,language=0.5")
    rows = [{"reference": "Das ist ein Haus im Wald", "language": "de"}] * 2
    scores = rewards.score(rows, ["Das ist ein Haus im Wald", "This is a house in the forest"])
    assert scores[0].tolist() == [pytest.approx(100), 1]
    assert scores[1, 1] == 0 and 0 < scores[1, 0] < 50
    assert rewards.total(scores)[0] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "grpo.rewards is empty"),
        ("chrf+++=1", "'chrf\\+\\+\\+' is unknown"),
        ("chrf=many", "the weight 'many' is not a number"),
        ("chrf=nan", "the weight 'nan' is not a number"),
        ("chrf=1,chrf=2", "names a scorer twice"),
        ("no_such_module:function", "grpo.rewards: .*cannot be imported"),
    ],
)
def test_what_is_no_reward_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        Rewards.of(text)


def test_a_failing_scorer_is_named(tmp_path):
    (tmp_path / "bad.py").write_text("def fails(rows, answers):\n    return 1 / 0\n")
    with pytest.raises(ValueError, match="bad.py:fails: the scorer fails: ZeroDivisionError"):
        Rewards.of(f"{tmp_path / 'bad.py'}:fails").score([{}], ["x"])


def test_advantages_by_hand():
    rewards = np.array([1.0, 3.0, 5.0, 5.0])
    assert advantages(rewards, 2, "none").tolist() == [-1, 1, 0, 0]
    # Deviations of samples: sqrt(2) in the first group, 0 in the second.
    by_group = advantages(rewards, 2, "group")
    assert by_group == pytest.approx([-1 / (math.sqrt(2) + 1e-4), 1 / (math.sqrt(2) + 1e-4), 0, 0])
    whole = rewards.std(ddof=1) + 1e-4
    assert advantages(rewards, 2, "batch") == pytest.approx([-1 / whole, 1 / whole, 0, 0])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_answers_without_a_reward_change_nothing_for_the_others(scale):
    known = advantages(np.array([1.0, 4.0, 2.0, 2.0]), 2, scale)
    nan = math.nan
    found = advantages(np.array([1.0, 4.0, nan, 2.0, 2.0, nan, nan, nan, nan]), 3, scale)
    assert found[[0, 1, 3, 4]] == pytest.approx(known)
    assert np.isnan(found[[2, 5, 6, 7, 8]]).all()


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_those_of_trl(scale):
    """As trl.GRPOTrainer has them: torch's deviation of samples, and 1e-4 added to it."""
    torch = pytest.importorskip("torch")
    rewards = np.random.default_rng(0).normal(size=(5, 4))
    theirs = torch.tensor(rewards)
    expected = theirs - theirs.mean(1, keepdim=True)
    if scale != "none":
        spread = theirs.std(1, keepdim=True) if scale == "group" else theirs.std()
        expected = expected / (spread + 1e-4)
    found = advantages(rewards.reshape(-1), 4, scale).reshape(5, 4)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)
