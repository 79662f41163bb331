"""Time, memory and cost of a run on a slice, from what `marco plan` measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Predicted from the compiler and the data sheet; no chip has run it.

    Attributes:
        chips: of all slices.
        tokens: of the whole run.
        hours: (at best, as scheduled): collectives hidden behind products, and not.
    """

    chips: int
    tokens: float
    hours: tuple[float, float]

    def lines(self, price: float | None = None) -> list[str]:
        """To read; with `price`, of a chip and hour in any currency, what it costs."""
        low, high = self.hours
        told = [
            f"{self.tokens / 1e9:,.3g} billion tokens on {self.chips:,} chips",
            f"{low:,.1f} to {high:,.1f} hours, {low * self.chips:,.0f} to "
            f"{high * self.chips:,.0f} chip-hours",
        ]
        if price is not None:
            told.append(
                f"cost {low * self.chips * price:,.0f} to {high * self.chips * price:,.0f}, "
                f"at {price:g} a chip and hour"
            )
        told.append("Training steps alone, without evaluation and restarts; predicted, not run.")
        return told


def estimate(plan: Mapping[str, Any], steps: int, chips: int) -> Estimate:
    """Time of so many steps.

    Args:
        plan: what `marco plan --out` writes.
        steps: of the run.
        chips: of all slices.

    Raises:
        ValueError: the plan has no training step.
    """
    if "predicted" not in plan:
        raise ValueError("the plan has no training step: run marco plan with --only=train")
    planned, predicted = plan["planned"], plan["predicted"]
    rows = planned["sequences_per_chip"] * chips
    seconds = (predicted["step_seconds_if_all_overlaps"], predicted["step_seconds_as_scheduled"])
    return Estimate(
        chips,
        float(steps) * rows * planned["length"],
        (seconds[0] * steps / 3600, seconds[1] * steps / 3600),
    )
