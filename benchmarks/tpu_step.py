"""The Qwen2-7B training step, compiled for TPU slices: memory, FLOPs and bytes on the wire.

    python -m benchmarks.tpu_step [--rows=v5p_1x4096_full,...]

Each row is a topology, a batch and a remat policy, compiled ahead of time by the TPU compiler
(libtpu): no TPU is needed, and nothing is timed. It is compared with what the same compiler made of
MaxText 0.2.5 and of a plain step, 250 lines of shard_map with explicit collectives and a chunked
loss; those numbers are kept below. Prints a JSON object for each row; `within` says whether memory
is at most 1.02 of MaxText's, FLOPs 0.03 above its and bytes 0.80 of its, and each at most that of
the plain step.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks.common import print_json, read_flags
from marco_jax.planning.plan import plan_step
from marco_jax.training.config import load_config

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs/qwen2_7b.py"
TOPOLOGIES = {"v5p": "v5p:4x4x4", "v5e": "v5e:16x16"}


@dataclasses.dataclass(frozen=True)
class Figures:
    """Peak HBM in GiB, HLO FLOPs over model FLOPs, and GiB on the wire."""

    peak_gib: float
    flops_ratio: float
    wire_gib: float


# TPU_ROWSxLENGTH_REMAT, with the rows of a chip: the best of MaxText, and of the plain step.
ROWS: dict[str, tuple[Figures | None, Figures | None]] = {
    "v5p_1x4096_full": (Figures(3.97, 1.252, 50.9), Figures(4.10, 1.276, 39.2)),
    "v5p_1x8192_full": (Figures(8.84, 1.282, 50.9), Figures(5.65, 1.305, 39.2)),
    "v5p_16x4096_full": (Figures(27.27, 1.252, 50.9), Figures(27.30, 1.276, 39.2)),
    "v5p_1x4096_minimal": (Figures(15.56, 1.046, 50.9), Figures(14.09, 1.052, 39.2)),
    "v5p_1x8192_minimal": (Figures(28.52, 1.087, 50.9), None),
    "v5p_16x4096_attention": (None, Figures(65.76, 1.221, 39.2)),
    "v5e_1x4096_full": (Figures(3.63, 1.252, 51.9), Figures(2.63, 1.276, 40.6)),
    "v5e_4x4096_full": (Figures(7.20, 1.252, 51.9), Figures(8.60, 1.276, 40.8)),
    "v5e_1x8192_full": (Figures(6.60, 1.282, 51.9), Figures(5.54, 1.305, 40.7)),
}


def measure(name: str) -> dict[str, Any]:
    """Compiles the step of a row."""
    tpu, shape, remat = name.split("_")
    rows, length = shape.split("x")
    fields = [f"batch.sequences_per_chip={rows}", f"batch.length={length}", f"remat={remat}"]
    plan = plan_step(load_config(str(CONFIG), fields), TOPOLOGIES[tpu])
    # The compiler's peak decides what fits; its sizes add up to more (see plan.py).
    ours = Figures(
        round(plan["memory"]["peak_gib"], 3),
        round(plan["flops"]["hlo_over_model"], 4),
        round(plan["wire"]["total_gib"], 2),
    )
    return {
        "row": name,
        **dataclasses.asdict(ours),
        "wire_gib_by_kind": plan["wire"]["by_kind_gib"],
        "within": _within(ours, *ROWS[name]),
    }


def _within(
    ours: Figures, maxtext: Figures | None, plain: Figures | None
) -> dict[str, dict[str, bool]]:
    """Whether each number is within its limit, by peer."""
    limits = {"plain": plain} if plain else {}
    if maxtext:
        peak, flops, wire = dataclasses.astuple(maxtext)
        limits["maxtext"] = Figures(1.02 * peak, flops + 0.03, 0.80 * wire)
    return {
        peer: {name: value <= getattr(limit, name) for name, value in vars(ours).items()}
        for peer, limit in limits.items()
    }


def main() -> None:
    """Prints a JSON object for each row."""
    args = read_flags(__doc__, rows=(tuple(ROWS), "names of rows"))
    if unknown := [name for name in args.rows if name not in ROWS]:
        sys.exit(f"--rows: {unknown[0]!r} is not one of {', '.join(ROWS)}")
    for name in args.rows:
        print_json(measure(name))


if __name__ == "__main__":
    main()
