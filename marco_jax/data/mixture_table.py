"""The mixture of a run in lines: what each source holds, its shares, and how often it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEFT_OUT = {
    "cut": "conversations are longer than a row and lose their end",
    "left_out": "pairs are longer than a row and are left out",
    "untrained": "have no token to train on, or none before they are cut, and are left out",
}


def mixture_table(described: Mapping[str, Any], max_epochs: float) -> tuple[list[str], list[str]]:
    """Lines for a log from what `Feed.describe` says, and warnings.

    Warnings are of conversations that do not fit a row, and of sources that are read too often.

    Args:
        described: see Feed.describe.
        max_epochs: from where on a source is read too often.
    """
    stages = described["stages"]
    names = [stage["name"] for stage in stages]
    width = max(12, *(len(name) + 2 for name in names))
    head = "".join(f"{name:>{width}}" for name in names)
    lines = [f"{'source':<16}{'documents':>12}{'tokens':>16}{head}{'epochs':>9}{'padding':>9}"]
    often: list[str] = []
    warnings: list[str] = []
    for name, source in described["sources"].items():
        shares = "".join(f"{stage['shares'].get(name, 0):>{width}.3%}" for stage in stages)
        if source["tokens"] is None:
            lines.append(f"{name:<16}{'streamed':>12}{'?':>16}{shares}{'?':>9}{'?':>9}")
            continue
        lines.append(
            f"{name:<16}{source['documents']:>12,}{source['tokens']:>16,}{shares}"
            f"{source['epochs']:>9.2f}{source['padding']:>9.1%}"
        )
        for what, remedy in _LEFT_OUT.items():
            if source.get(what):
                warnings.append(f"{name}: {source[what]:,} {remedy}; raise batch.length")
        if source["epochs"] > max_epochs:
            often.append(f"{name} {source['epochs']:.1f}")
    if often:
        warnings.append(
            f"read more often than mixture.max_epochs={max_epochs:g} times: "
            f"{', '.join(often)}; take smaller shares, mixture.within=unimax, or more data"
        )
    return lines, warnings
