"""The Qwen2-7B training step, compiled for TPU slices: memory, FLOPs and bytes on the wire.

    python -m benchmarks.tpu_step [--rows=v5p_1x4096_full,...] [--hlo_dir=DIR]
    python -m benchmarks.tpu_step --loss --rows=v5p_1x8192_full

Each row is a topology, a batch and a remat policy, compiled ahead of time by the TPU compiler
(libtpu): no TPU is needed, and nothing is timed. It is compared with what the same compiler made of
MaxText 0.2.5 and of a plain step, 250 lines of shard_map with explicit collectives and a chunked
loss; those numbers are kept below. --loss compiles the loss over the vocabulary and its gradients
alone, as the step lays them out, and prints their temporaries. Prints a JSON object for each row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from marco_jax.model.parameters import flatten
from marco_jax.planning.plan import plan_step
from marco_jax.planning.topology import topology_devices
from marco_jax.training.assemble import create_sharding, create_trainer, global_rows
from marco_jax.training.config import load_config, model_config
from marco_jax.training.losses import cross_entropy
from marco_jax.training.state import Batch

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs/qwen2_7b.py"
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Figures:
    """Peak HBM in GiB, HLO FLOPs over model FLOPs, and GiB on the wire."""

    peak_gib: float
    flops_ratio: float
    wire_gib: float


@dataclasses.dataclass(frozen=True)
class Row:
    """A step to compile, and the best of each peer."""

    topology: str
    rows: int
    length: int
    remat: str
    maxtext: Figures | None = None
    plain: Figures | None = None

    def config(self) -> ConfigDict:
        """The config of the 7B at this size."""
        fields = {"batch.sequences_per_chip": self.rows, "batch.length": self.length}
        fields |= {"remat": self.remat}
        return load_config(str(CONFIG), [f"{name}={value}" for name, value in fields.items()])


V5P, V5E = "v5p:4x4x4", "v5e:16x16"
ROWS = {
    "v5p_1x4096_full": Row(
        *(V5P, 1, 4096, "full"), Figures(3.97, 1.252, 50.9), Figures(4.10, 1.276, 39.2)
    ),
    "v5p_1x8192_full": Row(
        *(V5P, 1, 8192, "full"), Figures(8.84, 1.282, 50.9), Figures(5.65, 1.305, 39.2)
    ),
    "v5p_16x4096_full": Row(
        *(V5P, 16, 4096, "full"), Figures(27.27, 1.252, 50.9), Figures(27.30, 1.276, 39.2)
    ),
    "v5p_1x4096_minimal": Row(
        *(V5P, 1, 4096, "minimal"), Figures(15.56, 1.046, 50.9), Figures(14.09, 1.052, 39.2)
    ),
    "v5p_1x8192_minimal": Row(*(V5P, 1, 8192, "minimal"), Figures(28.52, 1.087, 50.9)),
    "v5p_16x4096_attention": Row(*(V5P, 16, 4096, "attention"), None, Figures(65.76, 1.221, 39.2)),
    "v5e_1x4096_full": Row(
        *(V5E, 1, 4096, "full"), Figures(3.63, 1.252, 51.9), Figures(2.63, 1.276, 40.6)
    ),
    "v5e_4x4096_full": Row(
        *(V5E, 4, 4096, "full"), Figures(7.20, 1.252, 51.9), Figures(8.60, 1.276, 40.8)
    ),
    "v5e_1x8192_full": Row(
        *(V5E, 1, 8192, "full"), Figures(6.60, 1.282, 51.9), Figures(5.54, 1.305, 40.7)
    ),
}


def measure(row: Row, hlo_path: pathlib.Path | None = None) -> dict[str, Any]:
    """Compiles the step of a row; `hlo_path` takes the optimized HLO text."""
    plan = plan_step(row.config(), row.topology, hlo_path=hlo_path)
    memory, wire = plan["memory"], plan["wire"]
    ours = Figures(
        round(memory["peak_gib"], 3),
        round(plan["flops"]["hlo_over_model"], 4),
        round(wire["total_gib"], 2),
    )
    return {
        **plan["planned"],
        **dataclasses.asdict(ours),
        # The compiler's peak decides what fits; its sizes add up to more (see plan.py).
        "sum_of_sizes_gib": round(memory["sum_of_sizes_gib"], 3),
        "temporaries_gib": round(memory["temporaries_gib"], 3),
        "wire_gib_by_kind": {kind: round(gib, 3) for kind, gib in wire["by_kind_gib"].items()},
        "asynchronous_share": round(wire["asynchronous_share"], 3),
        "collectives_executed": wire["collectives_executed"],
        "compile_seconds": round(plan["compile_seconds"], 1),
        "checks": _checks(ours, row),
    }


def _checks(ours: Figures, row: Row) -> dict[str, bool]:
    checks = {}
    if row.maxtext:
        checks = {
            "wire at most 0.80 of MaxText": ours.wire_gib <= 0.80 * row.maxtext.wire_gib,
            "peak at most 2% above MaxText": ours.peak_gib <= 1.02 * row.maxtext.peak_gib,
            "FLOPs at most 0.03 above MaxText": ours.flops_ratio <= row.maxtext.flops_ratio + 0.03,
        }
    if row.plain:
        checks |= {
            "wire below the plain step": ours.wire_gib < row.plain.wire_gib,
            "peak below the plain step": ours.peak_gib < row.plain.peak_gib,
            "FLOPs below the plain step": ours.flops_ratio < row.plain.flops_ratio,
        }
    return checks


def measure_loss(row: Row) -> dict[str, Any]:
    """Compiles the loss of a row: hidden states, the head's shard and targets in, gradients out."""
    config = row.config()
    model = model_config(config, config.tokenizer.vocab_size)
    sharding = create_sharding(config, topology_devices(row.topology))
    trainer = create_trainer(config, model, sharding, num_sources=1)
    head = flatten(trainer.abstract_state().params)["lm_head/embedding"]
    batch = trainer.abstract_batch(global_rows(config, sharding), row.length)
    spec = trainer.batch_sharding.spec
    hidden = jax.ShapeDtypeStruct(
        (*batch.tokens.shape, model.hidden_size),
        jnp.bfloat16,
        sharding=jax.NamedSharding(sharding.mesh, spec),
    )

    def gradients(hidden: jax.Array, table: jax.Array, batch: Batch) -> tuple:
        fixed = (batch.targets, batch.loss_weights, trainer.options.loss, trainer.layout(batch))
        return jax.grad(lambda *args: cross_entropy(*args, *fixed)[0], argnums=(0, 1))(
            hidden, table
        )

    mapped = jax.shard_map(
        gradients,
        mesh=sharding.mesh,
        in_specs=(spec, head.sharding.spec, spec),
        out_specs=(spec, head.sharding.spec),
        check_vma=False,
    )
    found = jax.jit(mapped).lower(hidden, head, batch).compile().memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes
    return {
        "vocabulary": model.vocab_size,
        "temporaries_by_peak_gib": round((found.peak_memory_in_bytes - held) / GIB, 3),
        # Some buffers of a loop are counted twice.
        "temporaries_by_sum_gib": round(found.temp_size_in_bytes / GIB, 3),
        "arguments_and_results_gib": round(held / GIB, 3),
    }


def main() -> None:
    """Prints a JSON object for each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated names")
    parser.add_argument("--hlo_dir", type=pathlib.Path, help="write the optimized HLO here")
    parser.add_argument("--loss", action="store_true", help="the loss alone")
    arguments = parser.parse_args()
    names = arguments.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"--rows: {unknown[0]!r} is not one of {', '.join(ROWS)}")
    for name in names:
        path = arguments.hlo_dir and arguments.hlo_dir / f"{name}.hlo"
        found = measure_loss(ROWS[name]) if arguments.loss else measure(ROWS[name], path)
        print(json.dumps({"row": name, **found}), flush=True)


if __name__ == "__main__":
    main()
