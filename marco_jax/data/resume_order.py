"""The order of the data across restarts: unchanged, or changed with the user's consent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where an order begins: a step, and the rows of each source read before it."""

    step: int = 0
    rows: Mapping[str, int] = dataclasses.field(default_factory=dict)


# The origin of a run that begins.
START = Origin()


class OrderChanged(ValueError):
    """A restart would read other data than the run did before; the message names what differs."""


def resume_order(
    state: Mapping[str, Any], order: Mapping[str, Any], epochs: Mapping[str, int], step: int
) -> tuple[Origin, list[str]]:
    """The origin of a run that goes on after `step` steps, and what has changed, a line each.

    An order that has not changed keeps its origin. A changed one begins at `step`, and reads each
    source where it was left: documents that were not seen yet come first.

    Args:
        state: what the checkpoint kept (`Feed.state`).
        order: the order now (`Feed.order`).
        epochs: rows of an epoch of each source, now; None where that is not known.
        step: of the checkpoint.
    """
    changes = _differences(state["order"], order)
    if not changes:
        origin = state["origin"]
        return Origin(origin["step"], origin["rows"]), []
    rows = {}
    for name, epoch in epochs.items():
        before = state["rows"].get(name)
        if before is not None:
            # Rows of another length hold other amounts: the same share of the source is read.
            known = epoch and before["epoch"]
            rows[name] = (
                round(before["used"] / before["epoch"] * epoch) if known else before["used"]
            )
    return Origin(step, rows), changes


def refuse_change(changes: list[str]) -> None:
    """Raises OrderChanged for the changes, in one line with the remedy."""
    raise OrderChanged(
        f"the data's order is not that of the checkpoint ({'; '.join(changes)}): set the fields "
        "back, or set mixture.accept_change=true to go on with the new order from here"
    )


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Lines "name: old -> new" for every value in which two pieces of plain data differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = list(dict.fromkeys([*old, *new]))
        return [
            line
            for key in names
            for line in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for number, (left, right) in enumerate(zip(old, new, strict=True))
            for line in _differences(left, right, f"{name}[{number}]")
        ]
    return [] if old == new else [f"{name}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
