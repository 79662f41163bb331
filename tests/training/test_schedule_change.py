"""A restart with other steps names the learning rate before and after."""

import pytest

from marco_jax.training.config import plan_stages
from marco_jax.training.optimizer import join_stages
from marco_jax.training.restore import schedule_change


def test_the_learning_rates_of_both_schedules_are_named(small_config):
    fields = ("stages=stage1", "mixture.name=stage1")
    old = small_config(*fields, "steps=1000")
    new = small_config(*fields, "steps=2000")
    before, after = (
        float(join_stages([stage.schedule for stage in plan_stages(config)])(490))
        for config in (old, new)
    )
    # Ten of the steps were skipped, and schedules have not counted them.
    assert schedule_change(old.to_dict(), new, 500, 490) == (
        f"learning rate after step 500: {before:.3g} before, {after:.3g} under the new schedule "
        "(steps: 1000 -> 2000)"
    )
    assert before < after


@pytest.mark.parametrize(
    "changes", [(), ("steps=2000", "stage.stage1.schedule=constant"), ("seed=5",)]
)
def test_a_rate_that_stays_is_not_named(small_config, changes):
    fields = ("stages=stage1", "mixture.name=stage1", "steps=1000")
    constant = ("stage.stage1.schedule=constant",) if changes else ()
    old = small_config(*fields, *constant)
    new = small_config(*fields, *constant, *changes)
    assert schedule_change(old.to_dict(), new, 500, 500) == ""


def test_a_config_without_stages_is_passed_over(small_config):
    assert schedule_change({}, small_config(), 5, 5) == ""
    assert schedule_change({"steps": 3, "stages": 4}, small_config(), 5, 5) == ""
