"""The report of a curation as one HTML page: no scripts, nothing from elsewhere."""

from __future__ import annotations

import collections
import html
from collections.abc import Iterable, Sequence
from typing import Any

from marco_jax.languages import LANGUAGES

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; color: #222;
  padding: 0 1em }
.wide { overflow-x: auto; margin: 0.5em 0 1.5em } table { border-collapse: collapse }
td, th { padding: 2px 10px; vertical-align: top } th { text-align: left; white-space: nowrap }
th { border-bottom: 1px solid #888 } td.n { text-align: right }
tr:nth-child(even) td { background: #f5f5f5 } svg { margin: 4px } summary { cursor: pointer }
.bar { fill: #4878a8 } .bound { stroke: #c0392b; stroke-width: 1.5 } text { font-size: 10px }
i { display: block; height: 1em; margin-top: 0.25em; background: #4878a8 }
td.t { min-width: 12em; overflow-wrap: anywhere }
"""
# Of a histogram, in pixels.
WIDTH, HEIGHT, LABEL = 230, 60, 26


def curation_page(report: dict[str, Any]) -> str:
    """The page of what `curate` returns."""
    reasons: collections.Counter[str] = collections.Counter()
    for entry in report["languages"].values():
        reasons.update(entry["rejected"])
    total = report["total"]
    samples = [tuple(sample.values()) for sample in report["samples"]]
    share = total["kept"] / max(1, total["read"])
    parts = [
        "<h1>Curation</h1>",
        f"<p>Kept {total['kept']:,} of {total['read']:,} documents ({share:.1%}),"
        f" {total['kept_bytes']:,} bytes; {total['masked']:,} pieces of personal data masked;"
        f" {total['unreadable']:,} records could not be read.</p>",
        "<h2>Funnel</h2>",
        _funnel_table(report["funnel"]),
        *_languages(report["languages"]),
        _table("Reasons", ("stage and reason", "documents"), reasons.most_common()),
        _table("Unreadable", ("fault", "records"), report["unreadable"].items()),
        _table("Groups of copies", ("size", "groups"), report["cluster_sizes"].items()),
        "<h2>Funnels by language</h2>",
        *(_funnel(code, entry) for code, entry in _most_first(report["languages"])),
        "<h2>Scores</h2><p>Red lines are the bounds of a rule. A document that breaks one is not"
        " measured by those after it.</p>",
        *_scores(report["histograms"]),
        _table("Samples", ("language", "fate", "id", "text"), samples) if samples else "",
    ]
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Curation</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style>"
    )
    return f"{head}{''.join(parts)}\n"


def _most_first(languages: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(languages.items(), key=lambda item: (-item[1]["kept"], item[0]))


def _languages(languages: dict[str, Any]) -> Iterable[str]:
    """A table of those that something was kept of, and another to unfold."""
    names = ("language", "read", "kept", "share", "bytes", "tokens")
    rows = [
        (
            f"{code} {LANGUAGES[code].name}" if code in LANGUAGES else code,
            entry["read"],
            entry["kept"],
            entry["kept"] / max(1, entry["read"]),
            entry["bytes"],
            entry["tokens"] or "",
        )
        for code, entry in _most_first(languages)
    ]
    yield _table("Languages", names, [row for row in rows if row[2]])
    none = [row for row in rows if not row[2]]
    if none:
        yield f"<details><summary>{len(none)} languages of which nothing was kept</summary>"
        yield f"{_table('', names[:2], [row[:2] for row in none])}</details>"


def _funnel(code: str, entry: dict[str, Any]) -> str:
    title = f"{html.escape(code)}: {entry['kept']:,} of {entry['read']:,}"
    return f"<details><summary>{title}</summary>{_funnel_table(entry['funnel'])}</details>"


def _funnel_table(rows: list[dict[str, Any]]) -> str:
    whole = max(1, rows[0]["documents"])
    bars = [f'<i style="width:{12 * row["documents"] / whole:.2f}em"></i>' for row in rows]
    cells = [
        (row["after"], row["documents"], _Markup(bar), row["bytes"], row["tokens"] or "")
        for row, bar in zip(rows, bars, strict=True)
    ]
    return _table("", ("after", "documents", "", "bytes", "tokens"), cells)


def _scores(histograms: list[dict[str, Any]]) -> Iterable[str]:
    by_language: dict[str, list[str]] = {}
    for histogram in histograms:
        by_language.setdefault(histogram["language"], []).append(_histogram(histogram))
    for code, drawn in by_language.items():
        yield f"<details><summary>{html.escape(code)}</summary>{''.join(drawn)}</details>"


def _histogram(histogram: dict[str, Any]) -> str:
    """Bars of counts, and lines where the bounds are."""
    counts = histogram["counts"]
    bounds = [b for b in (histogram["least"], histogram["most"]) if b is not None]
    values = [value for value, _ in counts] + bounds
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    most = max(count for _, count in counts)

    def place(value: float) -> float:
        return 4 + (value - low) / span * (WIDTH - 14)

    bars = "".join(
        f'<rect class="bar" x="{place(value):.1f}" width="5" y="{HEIGHT - h:.1f}" height="{h:.1f}">'
        f"<title>{value:g}: {count:,}</title></rect>"
        for value, count in counts
        for h in [max(1.0, (HEIGHT - 14) * count / most)]
    )
    lines = "".join(
        f'<line class="bound" x1="{place(b):.1f}" x2="{place(b):.1f}" y1="12" y2="{HEIGHT}"/>'
        for b in bounds
    )
    name = html.escape(histogram["rule"])
    limits = ", ".join(f"{bound:g}" for bound in bounds)
    text = f'<text x="4" y="9">{name} ({limits})</text>' if limits else f'<text y="9">{name}</text>'
    ends = f'<text x="2" y="{HEIGHT + 12}">{low:g}</text>'
    ends += f'<text x="{WIDTH - 30}" y="{HEIGHT + 12}">{high:g}</text>'
    return f'<svg width="{WIDTH}" height="{HEIGHT + LABEL}">{text}{bars}{lines}{ends}</svg>'


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    heading = f"<h2>{title}</h2>" if title else ""
    table = f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'
    return heading + table if lines else ""


class _Markup(str):
    """Text that is HTML as it stands."""


def _cell(value: Any) -> str:
    if isinstance(value, _Markup):
        return f"<td>{value}</td>"
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    if isinstance(value, float):
        return f'<td class="n">{value:.1%}</td>'
    # Texts run in the direction of their script.
    kind = ' class="t"' if len(value) > 40 else ""
    return f'<td{kind} dir="auto">{html.escape(value)}</td>'
