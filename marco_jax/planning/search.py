"""`marco plan --search`: finds the mesh, batch and memory policy with the fastest predicted step.

Compiling a step takes a minute, and there are hundreds of layouts. So all are ranked by a rough
estimate, and only the best are compiled; the reported numbers come from the compiler.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.objectives.losses import default_logits_mib
from marco_jax.planning.memory import KEPT_ACTIVATIONS, estimate_memory
from marco_jax.planning.plan import DoesNotFit, plan_step
from marco_jax.planning.plan_text import CAVEAT
from marco_jax.planning.planned_model import planned_model
from marco_jax.planning.topology import topology_devices
from marco_jax.runtime.chips import GIB, Chip, chip_of
from marco_jax.training.assemble import check_run, create_sharding

_log = logging.getLogger(__name__)

REMATS = ("minimal", "offload", "attention", "full")
SEQUENCES = (1, 2, 4, 8, 16)
# HLO FLOPs over model FLOPs by remat policy, as compiled for Qwen2-7B at 4096 tokens.
_RECOMPUTE = {"minimal": 1.01, "offload": 1.01, "attention": 1.215, "full": 1.235}
# The share of collectives, or of products if these are shorter, that does not overlap.
_EXPOSED = 0.15
_AXES = ("data", "fsdp", "tensor", "context")
# Layouts whose estimated memory exceeds the chip's by less than this factor are compiled, too.
_SLACK = 1.1


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A layout of the training step, with estimated seconds and bytes per chip."""

    mesh: tuple[tuple[str, int], ...]
    sequences_per_chip: int
    remat: str
    keep_gathered: bool
    seconds: float
    bytes: float

    def apply(self, config: ConfigDict) -> ConfigDict:
        """A copy of the config with this layout."""
        config = config.copy_and_resolve_references()
        config.update_from_flattened_dict(self.fields())
        return config

    def fields(self) -> dict[str, Any]:
        """The layout as config fields."""
        return {
            **{f"mesh.{name}": size for name, size in self.mesh},
            "mesh.keep_gathered": self.keep_gathered,
            "batch.sequences_per_chip": self.sequences_per_chip,
            "remat": self.remat,
        }


def search_meshes(
    config: ConfigDict, topology: str, *, compiles: int, sequences: Sequence[int] = SEQUENCES
) -> dict[str, Any]:
    """Ranks all layouts of a training step and compiles the most promising ones.

    The mesh, sequences_per_chip, remat and mesh.keep_gathered of a training config are searched;
    `sequences` are values of batch.sequences_per_chip, which change the tokens of a step;
    `compiles` layouts are compiled. A mesh with `data` above 1 has replicas of fsdp groups.

    Returns:
        `best`: the layout that fits with the most predicted tokens per second, with its `plan` and
        `fields`, or None; `tried`: all compiled layouts, best first, each with `on_front`: whether
        it fits, and no other that fits is at least as good in peak memory, bytes on the wire per
        token and tokens per second, and better in one; `considered`: number of layouts.

    Raises:
        ValueError: the topology is unknown, or no layout divides the model.
    """
    model, _ = planned_model(config)
    found = list(candidates(config, model, topology, sequences))
    if not found:
        raise ValueError(f"no mesh over {topology} divides the model: try another topology")
    chip = chip_of(topology)
    fitting = [item for item in found if item.bytes <= _SLACK * chip.hbm_bytes]
    # If none is estimated to fit, try the smallest.
    ranked = sorted(fitting, key=lambda item: item.seconds / item.sequences_per_chip)
    ranked = ranked or sorted(found, key=lambda item: item.bytes)
    tried: list[dict[str, Any]] = []
    for item in ranked:
        if len(tried) == compiles:
            break
        if any(_is_larger(item, other) for other in tried):
            continue
        tried.append(_try(item, config, topology))
        _log.info(_line(tried[-1]))
    tried.sort(key=lambda row: -row["tokens_per_second"])
    mark_front(tried)
    best = next((row for row in tried if row["fits"]), None)
    return {"best": best, "tried": tried, "considered": len(found)}


def candidates(
    config: ConfigDict, model: Qwen2Config, topology: str, sequences: Sequence[int]
) -> Iterator[Candidate]:
    """Yields every layout that divides the model and the batch, with its estimate."""
    slices = config.mesh.num_slices
    devices = topology_devices(topology, slices)
    chips = len(devices) // slices
    for fsdp, tensor, context in itertools.product(_powers(chips), repeat=3):
        if chips % (fsdp * tensor * context) or tensor > 8:
            continue
        sizes = (chips // (fsdp * tensor * context), fsdp, tensor, context)
        mesh = dict(zip(_AXES, sizes, strict=True))
        changed = config.copy_and_resolve_references()
        changed.mesh.update(mesh)
        sharding = create_sharding(changed, devices)
        for rows in sequences:
            changed.batch.sequences_per_chip = rows
            try:
                check_run(changed, model, sharding)
            except ValueError:
                continue
            for remat, keep in itertools.product(REMATS, (False, True)):
                if keep and sharding.ways("embed") == 1:
                    continue
                changed.mesh.keep_gathered = keep
                estimate = _estimate(model, changed, mesh, rows, remat, chip_of(topology))
                yield Candidate(tuple(mesh.items()), rows, remat, keep, *estimate)


def _powers(limit: int) -> list[int]:
    return [2**power for power in range(limit.bit_length()) if 2**power <= limit]


def _estimate(
    model: Qwen2Config, config: ConfigDict, mesh: dict[str, int], rows: int, remat: str, chip: Chip
) -> tuple[float, float]:
    """Roughly estimates the seconds of a step and its peak memory in bytes, per chip."""
    data, context, tensor = mesh["data"], mesh["context"], mesh["tensor"]
    length = config.batch.length
    ways = mesh["fsdp"] * context  # shards of a parameter
    micro = config.batch.accumulation_steps
    tokens = rows * tensor * length / micro  # per chip and micro-batch
    hidden = model.hidden_size
    kv_heads = 2 * model.num_key_value_heads * model.head_dim
    parameters = model.num_parameters / tensor
    layers = model.num_hidden_layers
    logits_mib = config.loss.logits_mib or default_logits_mib("tpu")

    memory = estimate_memory(model, config, mesh, rows, remat, logits_mib)
    stack, size = memory[KEPT_ACTIVATIONS], sum(memory.values())

    flops = model.flops_per_token(length) * rows * length * _RECOMPUTE[remat]
    passes = 2 if remat in ("minimal", "offload") else 3  # executions of a layer's collectives
    # Gathered forward and, unless kept, backward; gradients are scattered. All bfloat16.
    moves = 2 if config.mesh.keep_gathered else 3
    wire = 2 * moves * parameters * (1 - 1 / ways) * micro
    wire += (passes + 1) * 2 * tokens * micro * 2 * hidden * (1 - 1 / tensor) * layers
    if context > 1:
        wire += (passes + 1) * tokens * context * micro * 2 * kv_heads / tensor * layers
    replicas = 8 * parameters / ways
    wire += replicas * (1 - 1 / data)
    across = replicas * (1 - 1 / config.mesh.num_slices)
    moved = 2 * stack / 32e9 if remat == "offload" else 0.0  # over PCIe, to the host and back
    # A collective runs along one mesh axis, which has about half of the links.
    compute, network = flops / chip.peak_flops, wire / (chip.ici_bandwidth / 2)
    seconds = max(compute, network) + _EXPOSED * min(compute, network)
    seconds += across / chip.dcn_bandwidth
    return max(seconds, moved), size


def _try(item: Candidate, config: ConfigDict, topology: str) -> dict[str, Any]:
    row: dict[str, Any] = {"fields": item.fields(), "estimated_gib": item.bytes / GIB}
    try:
        plan = plan_step(item.apply(config), topology)
    except DoesNotFit as error:
        return row | {"fits": False, "tokens_per_second": 0.0, "reason": str(error), "plan": None}
    rate = plan["predicted"]["tokens_per_second_as_scheduled"]
    return row | {"fits": plan["memory"]["fits"], "tokens_per_second": rate, "plan": plan}


def mark_front(tried: Sequence[dict[str, Any]]) -> None:
    """Sets `on_front` of each row: whether no other row that fits dominates it."""
    costs = [_costs(row) if row["fits"] else None for row in tried]
    for row, own in zip(tried, costs, strict=True):
        row["on_front"] = own is not None and not any(
            other is not None
            and other != own
            and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))
            for other in costs
        )


def _costs(row: dict[str, Any]) -> tuple[float, float, float]:
    """Peak GiB, GiB on the wire per sequence, and seconds per token."""
    plan = row["plan"]
    wire = plan["wire"]["total_gib"] / plan["planned"]["sequences_per_chip"]
    return plan["memory"]["peak_gib"], wire, 1 / row["tokens_per_second"]


def _is_larger(item: Candidate, tried: dict[str, Any]) -> bool:
    """Whether a tried layout of the same mesh with less memory did not fit."""
    fields = item.fields()
    return (
        not tried["fits"]
        and all(fields[f"mesh.{name}"] == tried["fields"][f"mesh.{name}"] for name in _AXES)
        and item.bytes / GIB >= tried["estimated_gib"]
    )


def _line(row: dict[str, Any]) -> str:
    layout = ", ".join(
        f"{name.rpartition('.')[2]} {value}"
        for name, value in row["fields"].items()
        if value is True or value not in (0, 1)
    )
    if row["plan"] is None:
        return f"{layout}: does not fit"
    memory, predicted = row["plan"]["memory"], row["plan"]["predicted"]
    return (
        f"{layout}: {row['tokens_per_second']:,.0f} tokens/s, "
        f"MFU {predicted['mfu_as_scheduled']:.3f}, {row['plan']['wire']['total_gib']:.1f} GiB on "
        f"the wire, peak {memory['peak_gib']:.1f} of {memory['hbm_gib']:.0f} GiB"
    )


def format_search(found: dict[str, Any]) -> str:
    """Formats the tried layouts, best first, and the flags of the best."""
    rows = [
        f"{found['considered']} layouts, {len(found['tried'])} compiled, best first. A star: no "
        "other of them is better in one of tokens/s, peak and bytes per token, and no worse in the "
        "others."
    ]
    rows += [f"{'*' if row['on_front'] else ' ':>3} {_line(row)}" for row in found["tried"]]
    if found["best"] is None:
        rows.append("No layout fits: try more chips, or --search with more layouts.")
    else:
        fields = found["best"]["fields"].items()
        flags = " ".join(f"--config.{name}={value}" for name, value in fields)
        rows += [f"Use the best with {flags}", CAVEAT]
    return "\n".join(rows)
