"""Plans the kernels of evaluation and generation on a TPU slice by the TPU compiler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from marco_jax.decoding.abstract import abstract_kernels
from marco_jax.decoding.decode import DecodeState
from marco_jax.model.mesh import Sharding, check_mesh
from marco_jax.planning.network import axis_bandwidths, seconds_on_wire
from marco_jax.planning.plan import DoesNotFit, compile_program, tree_bytes
from marco_jax.planning.planned_model import planned_model
from marco_jax.planning.topology import topology_devices
from marco_jax.runtime.chips import GIB, chip_of
from marco_jax.runtime.progress import Progress
from marco_jax.training.assemble import create_sharding, create_trainer
from marco_jax.training.config import GRPO

KERNELS = ("score", "prefill", "decode")


def plan_kernels(
    config: ConfigDict, topology: str, names: Sequence[str] = KERNELS
) -> dict[str, Any]:
    """Compiles decoding kernels on the training mesh, with the rows of `config.evaluation`.

    Args:
        config: a training config whose mesh fills the topology.
        topology: such as "v5e:2x4".
        names: some of KERNELS.

    With objective "grpo" they are those that sample answers, beside the state of training: its
    moments and reference stay in memory, `memory.resident_gib`.

    Returns:
        by name: shapes, memory, FLOPs, bytes on the wire, and the predicted time of a call; a call
        of `decode` generates one token of every row. For a kernel that does not fit, `memory.fits`
        is false and `reason` is the compiler's.

    Raises:
        ValueError: the topology is unknown, or the mesh does not fit it or the model.
    """
    chip = chip_of(topology)
    model, _ = planned_model(config)
    sharding = create_sharding(config, topology_devices(topology, config.mesh.num_slices))
    check_mesh(model, sharding)
    length, most, resident = config.evaluation.max_length, math.inf, 0.0
    if config.objective == GRPO:
        length = config.grpo.max_prompt_tokens + config.grpo.max_new_tokens
        most = config.grpo.prompts * config.grpo.group
        state = create_trainer(config, model, sharding, 1).abstract_state()
        resident = (tree_bytes(state.optimizer) + tree_bytes(state.frozen)) / GIB
    ways = sharding.ways("batch") * sharding.ways("length")
    rows = max(1, int(min(config.evaluation.tokens_per_batch // length, most)) // ways) * ways
    kernels = abstract_kernels(model, sharding, rows, length, jnp.dtype(config.dtype))
    plans: dict[str, Any] = {}
    for name, function, arguments in kernels:
        if name in names:
            plans[name] = {"rows": rows, "length": length}
            tokens = rows if name == "decode" else rows * length
            try:
                with Progress(f"compiling the {name} kernel for {topology}"):
                    plans[name] |= _plan(function, arguments, tokens, sharding, topology)
                    _add_resident(plans[name]["memory"], resident)
            except DoesNotFit as error:
                memory = {"hbm_gib": chip.hbm_bytes / GIB, "fits": False}
                plans[name] |= {"memory": memory, "reason": str(error)}
    return plans


def plan_round(config: ConfigDict, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The time of a round of objective "grpo": sampling, and the steps that learn from it.

    Answers are as long as they may be, batches full, and prefill and rewards left out.

    Args:
        config: of the run.
        plan: with the step's `predicted`, and with `kernels`.

    Returns:
        JSON-ready numbers; none where a part is not planned or does not fit.
    """
    decode = plan.get("kernels", {}).get("decode", {})
    if config.objective != GRPO or "predicted" not in plan or "predicted" not in decode:
        return {}
    fields = config.grpo
    answers, steps = fields.prompts * fields.group, fields.updates * fields.epochs
    calls = -(-answers // decode["rows"]) * fields.max_new_tokens
    sampling = calls * decode["predicted"]["call_seconds"]
    training = steps * plan["predicted"]["step_seconds_as_scheduled"]
    return {
        "answers": answers,
        "steps": steps,
        "sampling_seconds": sampling,
        "training_seconds": training,
        "sampling_share": sampling / (sampling + training),
    }


def _add_resident(memory: dict[str, Any], gib: float) -> None:
    """Adds what lies in memory beside a kernel, in GiB per chip."""
    if not gib:
        return
    memory["resident_gib"] = gib
    memory["peak_gib"] += gib
    memory["free_gib"] -= gib
    memory["fits"] = memory["peak_gib"] <= memory["hbm_gib"]


def _plan(
    function: Callable, arguments: tuple, tokens: int, sharding: Sharding, topology: str
) -> dict[str, Any]:
    chip = chip_of(topology)
    program = compile_program(function.lower(*arguments), sharding.mesh, chip)
    cost = program.cost
    parameters = tree_bytes(arguments[0])
    states = [argument for argument in arguments if isinstance(argument, DecodeState)]
    cache = sum(tree_bytes(state.cache) for state in states)
    # A call reads the parameters once, and the whole cache if it has one.
    memory = (parameters + cache) / chip.hbm_bandwidth
    compute = cost.flops / chip.peak_flops
    ici = sum(seconds_on_wire(cost.collectives, axis_bandwidths(sharding.mesh, topology)))
    call = max(compute, memory) + ici
    gathered = [item.payload_bytes for item in cost.collectives if item.kind == "all-gather"]
    return {
        "memory": {
            "parameters_gib": parameters / GIB,
            "cache_gib": cache / GIB,
            **program.memory,
        },
        "flops": cost.flops,
        "wire_gib": cost.wire_bytes() / GIB,
        "largest_gathered_gib": max(gathered, default=0.0) / GIB,
        "predicted": {
            "compute_seconds": compute,
            "hbm_seconds": memory,
            "ici_seconds": ici,
            "call_seconds": call,
            "tokens_per_second": tokens / call,
        },
        "compile_seconds": program.seconds,
    }
