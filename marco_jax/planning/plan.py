"""Plans a training step on a TPU slice by the TPU compiler, without a TPU.

Memory, FLOPs and bytes on the wire are properties of the compiled program. The time of a step is
predicted from them and the data sheet, and not measured.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import math
import pathlib
import time
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from marco_jax.data.mixtures import FLAT_SHARES
from marco_jax.lanes.lane_step import ALONE, LaneStep
from marco_jax.model.mesh import LANE_AXIS
from marco_jax.planning.hlo import COLLECTIVES, ProgramCost, analyze
from marco_jax.planning.memory import sweep_lanes
from marco_jax.planning.network import axis_bandwidths, seconds_on_wire
from marco_jax.planning.planned_model import planned_model
from marco_jax.planning.schedule import ScheduledTime, scheduled_time
from marco_jax.planning.topology import topology_devices
from marco_jax.runtime.chips import GIB, Chip, chip_of
from marco_jax.runtime.progress import Progress
from marco_jax.training.assemble import create_sharding, create_trainer, global_rows
from marco_jax.training.config import ConfigError, plan_run

# Number of sources that losses are summed by; it does not affect the plan.
_SOURCES = 40


class DoesNotFit(Exception):
    """A program does not fit in a chip's memory, according to the compiler."""


def plan_step(
    config: ConfigDict, topology: str, *, hlo_path: pathlib.Path | None = None
) -> dict[str, Any]:
    """Compiles the training step of `config` for a topology and reports its needs per chip.

    For a sweep with `config.sweep.parallel` it is the step of all runs that train at once, and all
    numbers are of them together.

    Args:
        config: a training config whose mesh fills the topology, or that of a sweep.
        topology: such as "v5p:4x4x4"; there are `config.mesh.num_slices` of them.
        hlo_path: file to write the optimized HLO text to.

    Returns:
        JSON-ready numbers under `memory`, `flops`, `wire` and `predicted`; `planned` describes the
        run; `sweep`, of runs that train at once, has the time of all.

    Raises:
        ValueError: the topology is unknown, or the mesh does not fit it, the model or the batch.
        DoesNotFit: the compiler runs out of memory.
    """
    chip = chip_of(topology)
    model, vocabulary = planned_model(config)
    sharding = create_sharding(config, topology_devices(topology, config.mesh.num_slices))
    trainer = create_trainer(config, model, sharding, _SOURCES, vocabulary, skip_empty=False)
    lanes, step = 1, trainer
    if parallel := "sweep" in config and config.sweep.parallel != ALONE:
        runs = _sweep_runs(config)
        lanes = sweep_lanes(config, model, sharding, runs, chip.hbm_bytes)
        step = LaneStep(trainer, lanes, config.sweep.parallel)
    state = step.abstract_state()
    batch = step.abstract_batch(global_rows(config, sharding), config.batch.length)
    with Progress(f"compiling the train step for {topology}"):
        program = compile_program(step.step.lower(state, batch), step.sharding.mesh, chip)
    if hlo_path:
        hlo_path.write_text(program.hlo, encoding="utf-8")
    cost, mesh = program.cost, dict(sharding.mesh.shape)
    tokens = lanes * config.batch.sequences_per_chip * config.batch.length
    model_flops = model.flops_per_token(config.batch.length) * tokens
    model_flops *= trainer.options.model_flops
    bandwidths = axis_bandwidths(step.sharding.mesh, topology)
    shape = tuple(step.sharding.mesh.shape.values())
    names = step.sharding.mesh.axis_names
    scheduled = scheduled_time(program.hlo, names, shape, chip, bandwidths)
    predicted = _predict(cost, scheduled, chip, bandwidths, model_flops, tokens, sharding.mesh.size)
    plan = {
        "planned": {
            "topology": topology,
            "num_slices": config.mesh.num_slices,
            "mesh": {name: size for name, size in mesh.items() if size > 1},
            "parameters": model.num_parameters,
            "sequences_per_chip": config.batch.sequences_per_chip,
            "length": config.batch.length,
            "accumulation_steps": config.batch.accumulation_steps,
            "remat": config.remat,
            "keep_gathered": config.mesh.keep_gathered,
            "quantize": config.quantize,
            "dtype": config.dtype,
        },
        "memory": {
            "parameters_gib": tree_bytes(state.params) / GIB,
            "optimizer_gib": tree_bytes(state.optimizer) / GIB,
            "frozen_gib": tree_bytes(state.frozen) / GIB,
            **program.memory,
        },
        "flops": {
            "model": model_flops,
            "hlo": cost.flops,
            "hlo_over_model": cost.flops / model_flops,
        },
        "wire": _wire(cost),
        "predicted": predicted,
        "compile_seconds": program.seconds,
    }
    if parallel:
        plan["sweep"] = _sweep(config, runs, lanes, sharding.mesh.size, step, predicted)
    return plan


def _sweep_runs(config: ConfigDict) -> int:
    """The runs of one shape of a sweep whose data is not here."""
    if not config.sweep.runs and config.sweep.units != "groups":
        raise ConfigError(
            f"sweep.runs is 0, four for each component, and sweep.units {config.sweep.units!r}: "
            "the components depend on the data, set sweep.runs to plan without it"
        )
    return config.sweep.runs or 4 * len(FLAT_SHARES)


def _sweep(
    config: ConfigDict,
    runs: int,
    lanes: int,
    devices: int,
    step: LaneStep,
    predicted: dict[str, Any],
) -> dict[str, Any]:
    """The time of a sweep's proxies, without compiling, evaluation, and runs of other shapes."""
    rows = global_rows(config, step.sharding)
    steps, rounds = plan_run(config, rows).steps, math.ceil(runs / lanes)
    kinds = ("if_all_overlaps", "as_scheduled")
    seconds = {kind: rounds * steps * predicted[f"step_seconds_{kind}"] for kind in kinds}
    return {
        "parallel": config.sweep.parallel,
        "lanes": lanes,
        "devices_per_lane": devices // dict(step.sharding.mesh.shape).get(LANE_AXIS, 1),
        "runs": runs,
        "rounds": rounds,
        "steps_per_run": steps,
        **{f"hours_{kind}": value / 3600 for kind, value in seconds.items()},
    }


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program: its HLO text, costs and memory, and the seconds of compilation."""

    hlo: str
    cost: ProgramCost
    memory: dict[str, Any]
    seconds: float


def compile_program(lowered: jax.stages.Lowered, mesh: Mesh, chip: Chip) -> Program:
    """Compiles a program; raises DoesNotFit if the compiler runs out of device memory."""
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in reason or "vmem" in reason:
            raise
        raise DoesNotFit(
            f"{reason.partition(': ')[2]} Use more chips, a smaller batch.sequences_per_chip "
            "(with batch.accumulation_steps), or a remat that keeps less"
        ) from None
    seconds, text = time.perf_counter() - start, _text_of(compiled)
    cost = analyze(text, mesh.axis_names, tuple(mesh.shape.values()))
    return Program(text, cost, _memory(compiled.memory_analysis(), chip), seconds)


def _text_of(compiled: jax.stages.Compiled) -> str:
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"this version of jax ({jax.__version__}) cannot read the program that libtpu "
            f"{importlib.metadata.version('libtpu')} has compiled ({reason}): "
            f"pip install 'jax[tpu]=={jax.__version__}'"
        ) from None


def _memory(analysis: Any, chip: Chip) -> dict[str, Any]:
    """The compiler's memory numbers, in GiB per chip.

    `peak_gib` is the maximum size of its heap, with arguments, and decides whether a program fits.
    `temporaries_gib` may exceed the chip's memory in programs that fit, since it counts twice what
    the loops over layers keep (7B with 16 x 4096 tokens on v4: 25.7 GiB of peak, 36.0 of
    temporaries, 32 of memory).
    """
    hbm, peak = chip.hbm_bytes / GIB, analysis.peak_memory_in_bytes / GIB
    arguments, temporaries = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return {
        "activations_and_temporaries_gib": peak - arguments / GIB,
        "host_temporaries_gib": analysis.host_temp_size_in_bytes / GIB,
        "peak_gib": peak,
        "hbm_gib": hbm,
        "free_gib": hbm - peak,
        "fits": peak <= hbm,
        "temporaries_gib": temporaries / GIB,
        "sum_of_sizes_gib": (arguments + temporaries + outputs) / GIB,
    }


def tree_bytes(tree: Any) -> float:
    """Bytes per device of a tree of ShapeDtypeStructs with shardings."""
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
    )


def _wire(cost: ProgramCost) -> dict[str, Any]:
    by_axes: dict[str, float] = collections.defaultdict(float)
    for item in cost.collectives:
        by_axes[" x ".join(item.axes)] += item.wire_bytes / GIB
    return {
        "total_gib": cost.wire_bytes() / GIB,
        "by_kind_gib": {kind: cost.wire_bytes(kind) / GIB for kind in COLLECTIVES},
        "by_axis_gib": dict(by_axes),
        "across_slices_gib": cost.wire_bytes(axis="slice") / GIB,
        "asynchronous_share": cost.asynchronous_share,
        "collectives_executed": sum(item.count for item in cost.collectives),
    }


def _predict(
    cost: ProgramCost,
    scheduled: ScheduledTime,
    chip: Chip,
    bandwidths: dict[str, float],
    model_flops: float,
    tokens: int,
    devices: int,
) -> dict[str, Any]:
    """Predicts seconds of a step: by its schedule, and if the network were hidden entirely.

    `core_seconds` are those of the cores by the compiler's estimates, without waits;
    `seconds_at_peak` those of the FLOPs at the data sheet's rate.
    """
    ici, dcn = seconds_on_wire(cost.collectives, bandwidths)
    core = scheduled.seconds - scheduled.waits_for_links - scheduled.waits_for_memory
    best = max(core + scheduled.waits_for_memory, ici, dcn)
    return {
        "seconds_at_peak": cost.flops / chip.peak_flops,
        "core_seconds": core,
        "ici_seconds": ici,
        "dcn_seconds": dcn,
        "waits_for_links_seconds": scheduled.waits_for_links,
        "waits_for_memory_seconds": scheduled.waits_for_memory,
        "step_seconds_if_all_overlaps": best,
        "step_seconds_as_scheduled": scheduled.seconds,
        "mfu_if_all_overlaps": model_flops / chip.peak_flops / best,
        "mfu_as_scheduled": model_flops / chip.peak_flops / scheduled.seconds,
        "tokens_per_second_as_scheduled": tokens * devices / scheduled.seconds,
    }
