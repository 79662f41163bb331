"""Time and cost of a run on a slice, from what `marco plan` measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def estimate_lines(
    plan: Mapping[str, Any], steps: int, chips: int, price: float | None = None
) -> list[str]:
    """Hours of so many steps, at best and as scheduled: collectives hidden behind products or not.

    Args:
        plan: what `marco plan --out` writes.
        steps: of the run.
        chips: of all slices.
        price: of a chip and hour, in any currency.

    Raises:
        ValueError: the plan has no training step.
    """
    if "predicted" not in plan:
        raise ValueError("the plan has no training step: run marco plan with --only=train")
    planned, predicted = plan["planned"], plan["predicted"]
    tokens = float(steps) * planned["sequences_per_chip"] * chips * planned["length"]
    low = predicted["step_seconds_if_all_overlaps"] * steps / 3600
    high = predicted["step_seconds_as_scheduled"] * steps / 3600
    lines = [
        f"{tokens / 1e9:,.3g} billion tokens on {chips:,} chips",
        f"{low:,.1f} to {high:,.1f} hours, {low * chips:,.0f} to {high * chips:,.0f} chip-hours",
    ]
    if price is not None:
        least, most = low * chips * price, high * chips * price
        lines.append(f"cost {least:,.0f} to {most:,.0f}, at {price:g} a chip and hour")
    lines.append("Training steps alone, without evaluation and restarts; predicted, not run.")
    return lines
