"""How many runs of a sweep train at once, and what is refused before any of them."""

import pytest

from marco_jax.lanes.lane_choice import choose_lanes, fitting_lanes
from marco_jax.training.assemble import create_sharding
from marco_jax.training.config import ConfigError, load_config


def lanes_of(root, *overrides, runs=17, fits=lambda lanes: True):
    config = load_config(str(root / "configs/mixture_ablation.py"), list(overrides))
    return choose_lanes(config, create_sharding(config), runs, fits)


def test_lanes_are_chosen_by_runs_memory_and_mesh(root):
    assert lanes_of(root) == 1
    assert lanes_of(root, "sweep.parallel=vmap", "sweep.lanes=5") == 5
    # 17 runs in two rounds of at most 16 lanes, or in three of the 6 that fit.
    assert lanes_of(root, "sweep.parallel=vmap") == 9
    assert lanes_of(root, "sweep.parallel=vmap", fits=lambda lanes: lanes <= 6) == 6
    assert lanes_of(root, "sweep.parallel=slices") == 8
    assert lanes_of(root, "sweep.parallel=slices", "mesh.fsdp=4", "mesh.tensor=2") == 4


def test_what_is_left_of_a_sweep_takes_fewer_lanes(root):
    config = load_config(str(root / "configs/mixture_ablation.py"), [])
    sharding = create_sharding(config)
    assert fitting_lanes("vmap", sharding, 8, 3) == 3
    # Three lanes do not divide eight devices.
    assert fitting_lanes("slices", sharding, 8, 3) == 2
    assert fitting_lanes("slices", sharding, 8, 1) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.parallel=pmap"], "sweep.parallel is 'pmap': choose one of none, vmap, slices"),
        (["sweep.lanes=4"], "sweep.lanes is 4 and sweep.parallel 'none'"),
        (["sweep.parallel=vmap", "sweep.lanes=1"], "sweep.lanes is 1: write 2 or more"),
        (["sweep.parallel=vmap", "sweep.lanes=18"], "there are 17 runs of one shape"),
        (["sweep.parallel=slices", "sweep.lanes=3"], "3 lanes do not divide the mesh"),
        (["sweep.parallel=slices", "mesh.fsdp=1", "mesh.tensor=8"], "cannot be divided"),
        (["sweep.parallel=vmap", "batch.sequences=12"], "12 rows in 1 microbatches is not"),
        (["sweep.parallel=vmap", "lora.rank=4"], "lora.rank is 4: such runs train one after"),
        (["sweep.parallel=vmap", "profile=2:3"], "profile is '2:3'"),
    ],
)
def test_fields_that_do_not_fit_are_one_line(root, overrides, message):
    with pytest.raises(ConfigError, match=message) as raised:
        lanes_of(root, *overrides)
    assert "\n" not in str(raised.value)
