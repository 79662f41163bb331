"""The Qwen2-7B training step, compiled for TPU slices: memory, FLOPs, bytes on the wire, overlap.

    python -m benchmarks.tpu_step [--rows=v5p_1x4096_full,...] [--set=FIELD=VALUE,...]

Each row is a topology, a batch and a remat policy, compiled ahead of time by the TPU compiler
(libtpu) with the default compiler options: no TPU is needed, and nothing is timed. It is compared
with what the same compiler made, without options, of MaxText 0.2.5 and of a plain step, 250 lines
of shard_map with explicit collectives and a chunked loss; those numbers are kept below. Memory has
two measures, the compiler's peak and the sum of the program's sizes, each compared with its own
kind. Prints a JSON object for each row; `within` says whether memory is at most 1.02 of MaxText's,
FLOPs 0.03 above its and bytes 0.80 of its, and each at most that of the plain step. `--set` changes
fields of the config, such as mesh.keep_gathered=true.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks.common import print_json, read_flags
from marco_jax.planning.plan import plan_step
from marco_jax.training.config import load_config

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs/qwen2_7b.py"
TOPOLOGIES = {
    "v5p": "v5p:4x4x4",
    "v5e": "v5e:16x16",
    "v6e": "v6e:16x16",
    "tpu7x": "tpu7x:4x4x4",
}


@dataclasses.dataclass(frozen=True)
class Figures:
    """Sum of a program's sizes and its peak in GiB, HLO FLOPs over model FLOPs, GiB on the wire."""

    sum_gib: float
    peak_gib: float | None
    flops_ratio: float
    wire_gib: float


# TPU_ROWSxLENGTH_REMAT, with the rows of a chip: the best of MaxText, and of the plain step.
ROWS: dict[str, tuple[Figures | None, Figures | None]] = {
    "v5p_1x4096_full": (Figures(3.97, 3.92, 1.252, 50.9), Figures(4.10, 3.85, 1.276, 39.2)),
    "v5p_1x8192_full": (Figures(8.84, None, 1.282, 50.9), Figures(5.65, None, 1.305, 39.2)),
    "v5p_16x4096_full": (Figures(27.27, None, 1.252, 50.9), Figures(27.30, None, 1.276, 39.2)),
    "v5p_1x4096_minimal": (Figures(15.56, None, 1.046, 50.9), Figures(14.09, None, 1.052, 39.2)),
    "v5p_1x8192_minimal": (Figures(28.52, None, 1.087, 50.9), None),
    "v5p_16x4096_attention": (None, Figures(65.76, None, 1.221, 39.2)),
    "v5e_1x4096_full": (Figures(3.63, None, 1.252, 51.9), Figures(2.63, None, 1.276, 40.6)),
    "v5e_4x4096_full": (Figures(7.20, None, 1.252, 51.9), Figures(8.60, None, 1.276, 40.8)),
    "v5e_1x8192_full": (Figures(6.60, None, 1.282, 51.9), Figures(5.54, None, 1.305, 40.7)),
    "v6e_1x4096_full": (None, None),
    "tpu7x_1x4096_full": (None, None),
}


def measure(name: str, fields: Sequence[str] = ()) -> dict[str, Any]:
    """Compiles the step of a row, with changed fields of the config."""
    tpu, shape, remat = name.split("_")
    rows, length = shape.split("x")
    row = [f"batch.sequences_per_chip={rows}", f"batch.length={length}", f"remat={remat}"]
    plan = plan_step(load_config(str(CONFIG), [*row, *fields]), TOPOLOGIES[tpu])
    ours = Figures(
        round(plan["memory"]["sum_of_sizes_gib"], 3),
        round(plan["memory"]["peak_gib"], 3),
        round(plan["flops"]["hlo_over_model"], 4),
        round(plan["wire"]["total_gib"], 2),
    )
    return {
        "row": name,
        **dataclasses.asdict(ours),
        "wire_gib_by_kind": {k: round(v, 2) for k, v in plan["wire"]["by_kind_gib"].items() if v},
        "asynchronous_share": round(plan["wire"]["asynchronous_share"], 3),
        "predicted": {name: round(value, 4) for name, value in plan["predicted"].items()},
        "within": _within(ours, *ROWS[name]),
    }


def _within(
    ours: Figures, maxtext: Figures | None, plain: Figures | None
) -> dict[str, dict[str, bool]]:
    """Whether each number that a peer has is within its limit, by peer."""
    limits = {"plain": vars(plain)} if plain else {}
    if maxtext:
        limits["maxtext"] = {
            "sum_gib": 1.02 * maxtext.sum_gib,
            "peak_gib": maxtext.peak_gib and 1.02 * maxtext.peak_gib,
            "flops_ratio": maxtext.flops_ratio + 0.03,
            "wire_gib": 0.80 * maxtext.wire_gib,
        }
    return {
        peer: {
            name: value <= limit[name]
            for name, value in vars(ours).items()
            if limit[name] is not None
        }
        for peer, limit in limits.items()
    }


def main() -> None:
    """Prints a JSON object for each row."""
    args = read_flags(
        __doc__, rows=(tuple(ROWS), "names of rows"), set=("", "FIELD=VALUE,... of the config")
    )
    if unknown := [name for name in args.rows if name not in ROWS]:
        sys.exit(f"--rows: {unknown[0]!r} is not one of {', '.join(ROWS)}")
    for name in args.rows:
        print_json(measure(name, [field for field in args.set.split(",") if field]))


if __name__ == "__main__":
    main()
