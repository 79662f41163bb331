"""The order of the data across restarts: unchanged, or changed with the user's consent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.data.streamed import STREAM_WINDOW

# What the order inside a source depends on, besides its content. Shares, steps and the size of the
# batch only decide when its next row is read.
_OF_SOURCES = {"seed": "seed", "length": "batch.length", "packing": "packing"}
# Sources that a line lists.
_LISTED = 5


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
    source behind the rows that it has read; `describe_change` says which documents these are.

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


def describe_change(state: Mapping[str, Any], order: Mapping[str, Any]) -> list[str]:
    """What an accepted change means for the documents of the sources, a line for each kind of it.

    Args:
        state: what the checkpoint kept (`Feed.state`); its order is another one than `order`.
        order: the order now (`Feed.order`).
    """
    before, after = state["order"]["sources"], order["sources"]
    common = [name for name in after if name in before]
    general = [
        f"{field} {_short(state['order'][name])} -> {_short(order[name])}"
        for name, field in _OF_SOURCES.items()
        if state["order"][name] != order[name]
    ]
    changed = [name for name in common if before[name] != after[name]]
    kept = [name for name in common if name not in changed]
    lines = []
    if general:
        # Rows of another length have other windows, and a stream begins again with other content.
        restarted = common if state["order"]["length"] != order["length"] else changed
        lines += _renewed(", ".join(general), common, restarted, state)
    elif changed:
        reason = f"the content of {_listed([repr(name) for name in changed])} has changed"
        lines += _renewed(reason, changed, changed, state)
    if kept and not general:
        which = "every source" if len(kept) == len(common) else "each of the other sources"
        lines.append(
            f"{which} goes on where it was left: documents not read yet in its epoch come first"
        )
    for names, what in (
        ([name for name in after if name not in before], "begins with the first row of its order"),
        ([name for name in before if name not in after], "is not read any more"),
    ):
        if names:
            lines.append(f"{_listed([repr(name) for name in names])} {what}")
    return lines


def _renewed(
    reason: str, names: Sequence[str], restarted: Sequence[str], state: Mapping[str, Any]
) -> list[str]:
    """Lines on sources whose own order is new.

    Args:
        reason: of the new order.
        names: of the sources.
        restarted: those that begin again with their first record, if they are streamed.
        state: what the checkpoint kept.
    """
    rows = {name: state["rows"][name] for name in names if name in state["rows"]}
    parts = {name: row["used"] / row["epoch"] for name, row in rows.items() if row["epoch"]}
    parts = {name: part for name, part in parts.items() if part}
    lines = []
    if parts:
        largest = sorted(parts, key=parts.__getitem__, reverse=True)
        shown = _listed([f"{name!r} {_percent(parts[name])}" for name in largest])
        lines.append(
            f"{reason}: a new order of documents begins: of {shown} of an epoch was read and may "
            "come again before the rest; some of the rest may come only in the next epoch"
        )
    streamed = [name for name, row in rows.items() if not row["epoch"] and row["used"]]
    again = [repr(name) for name in streamed if name in restarted]
    window = [repr(name) for name in streamed if name not in restarted]
    if again:
        lines.append(f"{reason}: streamed {_listed(again)} begins again with the first record")
    if window:
        lines.append(
            f"{reason}: streamed {_listed(window)} goes on at its window of {STREAM_WINDOW:,} "
            "documents, which may come again or be left out; all later ones come in their order"
        )
    return lines or [f"{reason}: nothing was read yet of the sources that this concerns"]


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.1 else f"{100 * part:.2g}%"


def _listed(texts: Sequence[str]) -> str:
    """The first of some texts, and how many more there are."""
    more = len(texts) - _LISTED
    return ", ".join(texts[:_LISTED]) + (f" and {more} others" if more > 0 else "")


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
