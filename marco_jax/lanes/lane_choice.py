"""How many runs of a sweep train at once: the fields `config.sweep.parallel` and `lanes`."""

from __future__ import annotations

import math
from collections.abc import Callable

from ml_collections import ConfigDict

from marco_jax.lanes.lane_step import ALONE, PARALLEL, SLICES
from marco_jax.model.mesh import Sharding, lane_sharding
from marco_jax.training.assemble import global_rows
from marco_jax.training.config import DPO, GRPO, ConfigError

# The most lanes of "vmap" that are chosen if `lanes` is 0, and memory does not allow fewer.
MOST_LANES = 16


def choose_lanes(
    config: ConfigDict,
    sharding: Sharding,
    runs: int,
    fits: Callable[[int], bool] = lambda lanes: True,
) -> int:
    """The number of lanes of a sweep; 1 if its runs train one after the other.

    Args:
        config: of the sweep.
        sharding: of all devices.
        runs: runs of one shape.
        fits: whether so many lanes of "vmap" fit in the devices' memory; asked if `lanes` is 0.

    Raises:
        ConfigError: fields that do not fit together, the devices or the batch.
    """
    parallel, lanes = config.sweep.parallel, config.sweep.lanes
    if parallel not in PARALLEL:
        raise ConfigError(f"sweep.parallel is {parallel!r}: choose one of {', '.join(PARALLEL)}")
    if parallel == ALONE:
        if lanes:
            raise ConfigError(
                f"sweep.lanes is {lanes} and sweep.parallel 'none': set it to vmap or slices"
            )
        return 1
    _check_runs(config)
    if lanes < 0 or lanes == 1:
        raise ConfigError(f"sweep.lanes is {lanes}: write 2 or more, or 0 to have it chosen")
    if max(lanes, 2) > runs:
        raise ConfigError(
            f"sweep.lanes is {lanes} and there are {runs} runs of one shape: choose fewer lanes, "
            "or set sweep.parallel=none"
        )
    rows, ways = global_rows(config, sharding), sharding.ways("batch")
    parts = config.batch.accumulation_steps
    if rows % (ways * parts):
        raise ConfigError(
            f"a batch of {rows} rows in {parts} microbatches is not divisible over {ways} ranks: "
            "change batch.sequences, batch.sequences_per_chip or batch.accumulation_steps"
        )
    if lanes:
        if parallel == SLICES:
            try:
                lane_sharding(sharding, lanes)
            except ValueError as error:
                raise ConfigError(f"sweep.lanes is {lanes}: {error}") from None
        return lanes
    if parallel == SLICES:
        found = fitting_lanes(parallel, sharding, sharding.mesh.size, runs)
        if found < 2:
            raise ConfigError(
                f"sweep.parallel is 'slices' and the {sharding.mesh.size} devices of the mesh "
                "cannot be divided into groups: set vmap or none, or a larger data or fsdp axis"
            )
        return found
    most = min(runs, MOST_LANES)
    while most > 2 and not fits(most):
        most -= 1
    # As many rounds as with `most`, but full ones.
    return math.ceil(runs / math.ceil(runs / most))


def fitting_lanes(parallel: str, sharding: Sharding, lanes: int, runs: int) -> int:
    """The most lanes up to `lanes` for `runs` runs that the mesh can be divided into."""
    for number in range(min(lanes, runs), 1, -1):
        if parallel != SLICES:
            return number
        try:
            lane_sharding(sharding, number)
        except ValueError:
            continue
        return number
    return 1


def _check_runs(config: ConfigDict) -> None:
    """Refuses runs that need the process to themselves."""
    set_fields = {
        "lora.rank": config.lora.rank,
        "profile": config.profile,
        "objective": config.objective if config.objective in (DPO, GRPO) else "",
    }
    for name, value in set_fields.items():
        if value:
            raise ConfigError(
                f"sweep.parallel is {config.sweep.parallel!r} and {name} is {value!r}: such runs "
                "train one after the other, set sweep.parallel=none"
            )
