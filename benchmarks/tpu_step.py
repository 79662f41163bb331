"""The Qwen2-7B training step, compiled for TPU slices: memory, FLOPs and bytes on the wire.

`python -m benchmarks.tpu_step [--rows=NAME,...] [--hlo_dir=DIR]` prints one JSON object a row. The
figures are the TPU compiler's own (libtpu, ahead of time): no TPU is needed, and none is timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from marco_jax.planning.plan import plan_step
from marco_jax.training.config import load_config

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs/qwen2_7b.py"


@dataclasses.dataclass(frozen=True)
class Figures:
    """Peak HBM GiB, HLO / model FLOPs and wire GiB of a peer: its best of each."""

    peak_gib: float
    flops_ratio: float
    wire_gib: float


@dataclasses.dataclass(frozen=True)
class Row:
    """A step to compile, and what the same compiler makes of MaxText 0.2.5 and of a plain step.

    The plain step is 250 lines of shard_map with explicit collectives and a chunked loss.
    """

    topology: str
    rows: int
    length: int
    remat: str
    maxtext: Figures | None = None
    plain: Figures | None = None
    overrides: tuple[str, ...] = ()


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
    """Compiles a row and compares its figures; `hlo_path` takes the optimized HLO text."""
    config = load_config(
        str(CONFIG),
        (
            f"batch.sequences_per_chip={row.rows}",
            f"batch.length={row.length}",
            f"remat={row.remat}",
            *row.overrides,
        ),
    )
    plan = plan_step(config, row.topology, hlo_path=hlo_path)
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


def main() -> None:
    """Prints a JSON object a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated names")
    parser.add_argument("--hlo_dir", type=pathlib.Path, help="write the optimized HLO here")
    arguments = parser.parse_args()
    names = arguments.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"--rows: {unknown[0]!r} is not one of {', '.join(ROWS)}")
    for name in names:
        path = arguments.hlo_dir and arguments.hlo_dir / f"{name}.hlo"
        print(json.dumps({"row": name, **measure(ROWS[name], path)}), flush=True)


if __name__ == "__main__":
    main()
