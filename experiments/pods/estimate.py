"""Time and cost of a run on slices, from what `marco plan` predicts."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.pods.slices import Slice


def read_plan(path: str, slice: Slice | None = None, count: int = 1) -> dict[str, Any]:
    """Reads what `marco plan --out` has written, and checks that it is for the same slices.

    Raises:
        ValueError: the file is not a plan with a training step, or it is one for other slices.
    """
    try:
        plan = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--plan={path} is not JSON: {error}") from None
    if not isinstance(plan, dict) or "predicted" not in plan:
        raise ValueError(
            f"--plan={path}: the plan has no training step: run marco plan with --only=train"
        )
    planned = plan.get("planned", {})
    found = (planned.get("topology"), planned.get("num_slices", 1))
    if slice is not None and found != (slice.name, count):
        raise ValueError(
            f"--plan={path} is for {found[1]} x {found[0]}, and the run has {count} x "
            f"{slice.name}: run marco plan with --topology={slice.name} --num_slices={count}"
        )
    return plan


def predicted_hours(plan: Mapping[str, Any], steps: int) -> tuple[float, float]:
    """Hours of so many steps, with all collectives hidden behind products, and as scheduled."""
    predicted = plan["predicted"]
    return (
        predicted["step_seconds_if_all_overlaps"] * steps / 3600,
        predicted["step_seconds_as_scheduled"] * steps / 3600,
    )


def cost_line(low: float, high: float, chips: int, price: float | None) -> str:
    """Hours and chip-hours, and what they cost at a price of a chip and hour, if one is known."""
    line = f"{low:,.1f} to {high:,.1f} hours, {low * chips:,.0f} to {high * chips:,.0f} chip-hours"
    if price is not None:
        least, most = low * chips * price, high * chips * price
        line += f", cost {least:,.0f} to {most:,.0f} at {price:g} a chip and hour"
    return line


def estimate_lines(
    plan: Mapping[str, Any], steps: int, chips: int, price: float | None = None
) -> list[str]:
    """Tokens, hours and cost of so many steps.

    Args:
        plan: what `marco plan --out` writes.
        steps: of the run.
        chips: of all slices.
        price: of a chip and hour, in any currency.
    """
    planned = plan["planned"]
    tokens = float(steps) * planned["sequences_per_chip"] * chips * planned["length"]
    return [
        f"{tokens / 1e9:,.3g} billion tokens on {chips:,} chips",
        cost_line(*predicted_hours(plan, steps), chips, price),
        "Training steps alone, without evaluation and restarts; predicted, not run.",
    ]
