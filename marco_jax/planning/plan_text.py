"""Formats plans as text tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CAVEAT = "Predicted from the TPU compiler and the data sheet; not measured on a chip."


def format_comparison(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Formats two plans side by side, with the ratio of the second to the first."""
    rows = [f"{'':<34}{'first':>14}{'second':>14}{'ratio':>9}"]
    for group in ("memory", "flops", "wire", "predicted"):
        for name, value in first[group].items():
            other = second[group][name]
            if isinstance(value, float):
                ratio = f"{other / value:9.3f}" if value else f"{'':>9}"
                rows.append(f"{name:<34}{value:>14,.4g}{other:>14,.4g}{ratio}")
    for plan in (first, second):
        rows.append(f"{plan['planned']}, fits: {plan['memory']['fits']}")
    rows.append(CAVEAT)
    return "\n".join(rows)


def format_plan(plan: dict[str, Any]) -> str:
    """Formats a plan as a table."""
    rows = []
    if "memory" in plan:
        fits = "fits" if plan["memory"]["fits"] else "DOES NOT FIT"
        rows.append(f"{'training step':<34}{fits:>14}")
    for group in ("planned", "memory", "flops", "wire", "predicted", "sweep", "round"):
        if group not in plan:
            continue
        rows.append(group)
        for name, value in plan[group].items():
            if isinstance(value, dict):
                parts = (f"{key} {_shown(item, '.2f')}" for key, item in value.items() if item)
                rows.append(f"  {name:<32}{', '.join(parts) or 'none'}")
            else:
                rows.append(f"  {name:<32}{_shown(value, ',.4g')}")
    rows += _kernels(plan.get("kernels", {}))
    rows.append(CAVEAT)
    return "\n".join(rows)


def _shown(value: Any, number: str) -> str:
    return format(value, number) if isinstance(value, float) else f"{value}"


def _kernels(kernels: dict[str, Any]) -> Iterator[str]:
    """One line per decoding kernel."""
    if kernels:
        columns = ("rows", "length", "peak GiB", "cache GiB", "wire GiB", "call s", "tokens/s")
        yield f"{'kernels':<12}{'':>8}" + "".join(f"{name:>12}" for name in columns)
    for name, kernel in kernels.items():
        memory = kernel["memory"]
        if "reason" in kernel:
            yield f"  {name:<10}{'DOES NOT FIT':>14}  {kernel['reason']}"
            continue
        predicted = kernel["predicted"]
        values = (memory["peak_gib"], memory["cache_gib"], kernel["wire_gib"])
        yield (
            f"  {name:<10}{'fits' if memory['fits'] else 'TOO BIG':>8}"
            f"{kernel['rows']:>12,}{kernel['length']:>12,}"
            + "".join(f"{value:>12.3f}" for value in values)
            + f"{predicted['call_seconds']:>12.4f}{predicted['tokens_per_second']:>12,.0f}"
        )
