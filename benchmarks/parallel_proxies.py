"""Steps per second of the proxies of a sweep: one after the other, and in lanes.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.parallel_proxies \
        [--lanes=8] [--steps=2] [--rounds=5] [--rows=1] [--length=256] [--hidden=128]

The sides are the ways of `config.sweep.parallel`, with the model of configs/mixture_ablation.py and
the mesh of all devices: `none`, where each proxy takes its steps on all devices; `vmap`, one
program for all proxies on all devices; `slices`, each proxy on its own group of devices. In a turn
every proxy takes `steps` steps, on batches of `rows` sequences a device that come from the host.
Sides take turns; `steps_per_second` counts the steps of all proxies, by the median turn, and
`ratio` is over `none`. `difference` is the largest difference of a loss from that of `none` at the
last step. Compilation, evaluation and checkpoints are not timed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import packed_batch, print_json, read_flags, take_turns

VOCABULARY = 8_000


def copied(state: Any) -> Any:
    """A copy on the same devices; all proxies of a sweep start from one base."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(jnp.copy, state)


def alone(trainer: Any, lanes: int, steps: int, batch: Callable[[int, int], Any]) -> Any:
    """A turn of proxies that train one after the other; returns the last losses, [lanes]."""
    import jax

    state, starts = trainer.init(seed=0), itertools.count(0, steps)
    states = [copied(state) for _ in range(lanes)]

    def turn() -> np.ndarray:
        start, losses = next(starts), []
        for lane in range(lanes):
            for step in range(start, start + steps):
                put = jax.device_put(batch(lane, step), trainer.batch_sharding)
                states[lane], metrics = trainer.step(states[lane], put)
            losses.append(metrics.loss_sums)
        return np.array(jax.block_until_ready(losses)).sum(-1)

    return turn


def together(
    trainer: Any, lanes: int, steps: int, batch: Callable[[int, int], Any], parallel: str
) -> Any:
    """A turn of proxies in lanes; returns the last losses, [lanes]."""
    import jax

    from marco_jax.lanes.lane_step import LaneBatch, LaneStep

    program, starts = LaneStep(trainer, lanes, parallel), itertools.count(0, steps)
    stack, state = program.empty(), trainer.init(seed=0)
    for lane in range(lanes):
        stack = program.put(stack, lane, copied(state))

    def turn() -> np.ndarray:
        nonlocal stack
        start = next(starts)
        for step in range(start, start + steps):
            batches = [batch(lane, step) for lane in range(lanes)]
            shape = batches[0].tokens.shape
            rows = [LaneBatch(one, slice(0, shape[0])) for one in batches]
            stack, metrics = program.step(stack, program.join_batches(rows, shape))
        return np.asarray(jax.block_until_ready(metrics.loss_sums)).sum(-1)

    return turn


def main() -> None:
    """Measures and prints JSON."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    args = read_flags(
        __doc__,
        lanes=(8, "proxies, all of them at once"),
        steps=(2, "of each proxy in a turn"),
        rounds=(5, "turns of each side"),
        rows=(1, "sequences of a batch on each device"),
        length=(256, "tokens of a sequence"),
        hidden=(128, "model.hidden_size"),
        sides=(("none", "vmap", "slices"), "which"),
    )
    import jax

    from marco_jax.lanes.lane_step import ALONE
    from marco_jax.training.assemble import create_sharding, create_trainer
    from marco_jax.training.config import load_config, model_config

    fields = {
        "model.hidden_size": args.hidden,
        "model.intermediate_size": 11 * args.hidden // 4,
        "batch.length": args.length,
        "batch.sequences_per_chip": args.rows,
    }
    overrides = [f"{name}={value}" for name, value in fields.items()]
    config = load_config("configs/mixture_ablation.py", overrides)
    model, sharding = model_config(config, VOCABULARY), create_sharding(config)
    trainer = create_trainer(config, model, sharding, num_sources=1)
    rows = args.rows * sharding.mesh.size

    def batch(lane: int, step: int) -> Any:
        return packed_batch(rows, args.length, VOCABULARY, seed=1000 * lane + step)

    sides = {}
    for name in args.sides:
        arguments = (trainer, args.lanes, args.steps, batch)
        sides[name] = alone(*arguments) if name == ALONE else together(*arguments, name)
    times = take_turns(sides, args.rounds, warm_up=1)
    first = next(iter(times.values()))
    steps = args.lanes * args.steps
    print_json(
        {
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "parameters": model.num_parameters,
            "tokens_per_batch": rows * args.length,
            "lanes": args.lanes,
            "steps_per_second": {name: round(steps / t.median, 3) for name, t in times.items()},
            "ratio": {name: round(first.median / t.median, 3) for name, t in times.items()},
            "seconds": {name: [round(s, 3) for s in t.seconds] for name, t in times.items()},
            "difference": {
                name: float(np.abs(t.answer / first.answer - 1).max()) for name, t in times.items()
            },
        }
    )


if __name__ == "__main__":
    main()
