"""What was kept and what was thrown away, by language and reason."""

from __future__ import annotations

import collections
import html
import pathlib
from typing import Any


def report_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The report from counts by (language, stage, reason); an empty stage is what was kept."""
    languages: dict[str, dict[str, Any]] = {}
    faults, samples = {}, []
    sizes: collections.Counter[str] = collections.Counter()
    total = {"read": 0, "kept": 0, "kept_bytes": 0, "masked": 0, "unreadable": 0}
    for row in rows:
        language, stage, reason = row["key"]
        count = row["documents"]
        if stage == "input":
            faults[reason] = count
            total["unreadable"] += count
            continue
        entry = languages.setdefault(language, {"read": 0, "kept": 0, "bytes": 0, "rejected": {}})
        entry["read"] += count
        total["read"] += count
        if stage:
            name = f"{stage}: {reason}"
            entry["rejected"][name] = entry["rejected"].get(name, 0) + count
        else:
            entry["kept"] += count
            entry["bytes"] += row["bytes"]
            total["kept"] += count
            total["kept_bytes"] += row["bytes"]
            total["masked"] += row["masked"]
            sizes.update(row["clusters"])
        for _, key, text in row["sample"]:
            fate = f"{stage}: {reason}" if stage else "kept"
            samples.append({"language": language, "fate": fate, "id": key, "text": text})
    return {
        "total": total,
        "unreadable": faults,
        "languages": languages,
        "cluster_sizes": dict(sorted(sizes.items(), key=lambda item: int(item[0]))),
        "samples": samples,
    }


def write_page(path: pathlib.Path, report: dict[str, Any]) -> None:
    """The report as one HTML page without scripts."""
    reasons: collections.Counter[str] = collections.Counter()
    for entry in report["languages"].values():
        reasons.update(entry["rejected"])
    rows = [
        (code, entry["read"], entry["kept"], entry["bytes"])
        for code, entry in sorted(report["languages"].items())
    ]
    samples = [tuple(sample.values()) for sample in report["samples"]]
    body = "".join(
        [
            "<h1>Curation</h1>",
            _table("Languages", ("language", "read", "kept", "kept bytes"), rows),
            _table("Rejected", ("stage and reason", "documents"), reasons.most_common()),
            _table("Unreadable", ("fault", "records"), list(report["unreadable"].items())),
            _table("Groups", ("size", "kept"), list(report["cluster_sizes"].items())),
            _table("Samples", ("language", "fate", "id", "text"), samples),
        ]
    )
    page = f'<!doctype html><meta charset="utf-8"><title>Curation</title>{body}\n'
    path.write_text(page, encoding="utf-8")


def _table(title: str, names: tuple[str, ...], rows: list[tuple]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<h2>{title}</h2><table><tr>{head}</tr>{lines}</table>"
