"""A run whose mixture follows its losses, killed and resumed, is the run that was not."""

import jax
import numpy as np
import pytest

from marco_jax.data.resume_order import OrderChanged
from marco_jax.reports.run_data import read_metrics
from marco_jax.training import loop
from marco_jax.weights.models import load_model

ADAPTIVE = (
    "mixture.adaptive.every=1",
    "mixture.adaptive.rate=0.5",
    # Rows of this length hold all sources in every step but a few.
    "batch.sequences=16",
    "steps=24",
    "stages=stage1",
    "mixture.name=stage1",
    "mixture.override=en=0.3,de=0.3,kk=0.2",
    "checkpoint.every=5",
)


class Died(BaseException):
    """Stands for kill -9."""


def figures(workdir):
    names = ("step", "loss", "grad_norm", "share/", "loss/", "tokens")
    return [
        {k: v for k, v in row.items() if k.startswith(names) and "_second" not in k}
        for row in read_metrics(workdir / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def whole(small_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("adaptive")
    assert loop.train(small_config(*ADAPTIVE), workdir) == 0
    return workdir


def test_weights_move_at_steps_and_are_logged(whole):
    rows = figures(whole)
    shares = [{k: v for k, v in row.items() if k.startswith("share/")} for row in rows]
    assert len(rows) == 24 and shares[0]["share/en"] == pytest.approx(0.3)
    assert shares[-1] != shares[0]
    assert all(sum(row.values()) == pytest.approx(1) for row in shares)


@pytest.mark.parametrize("dies", [15, pytest.param(18, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_the_same_weights(
    whole, small_config, tmp_path, monkeypatch, dies
):
    step = loop._Loop._step

    def dying(self, number, *arguments):
        if number == dies + 1:
            raise Died
        return step(self, number, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_step", dying)
        with pytest.raises(Died):
            loop.train(small_config(*ADAPTIVE), tmp_path)
    assert loop.train(small_config(*ADAPTIVE), tmp_path) == 0
    assert figures(tmp_path) == figures(whole)
    first, second = load_model(whole), load_model(tmp_path)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_prior_is_still_a_change(whole, small_config):
    changed = [*ADAPTIVE, "steps=30", "mixture.override=en=0.5"]
    with pytest.raises(OrderChanged, match="stages"):
        loop.train(small_config(*changed), whole)
