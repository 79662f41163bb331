"""The page of a curation: what was kept of each language, and why the rest was not."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.languages import LANGUAGES
from marco_jax.reports.charts import COLOURS, Figure, axis, chart
from marco_jax.reports.page import render_page


def curation_page(report: dict[str, Any]) -> str:
    """Renders the page of what `curate` returns."""
    reasons: collections.Counter[str] = collections.Counter()
    for entry in report["languages"].values():
        reasons.update(entry["rejected"])
    names = {
        code: f"{code} {LANGUAGES[code].name}" if code in LANGUAGES else code
        for code in report["languages"]
    }
    histograms = _histograms(report["histograms"])
    charts = {f"scores_{n}": one for n, one in enumerate(histograms.values())}
    return render_page(
        "curation.html.jinja",
        {"kept": _kept_by_language(report["languages"], names), **charts},
        report=report,
        names=names,
        answers=_answers(report),
        reasons=reasons.most_common(),
        rules=[(name, rule) for name, rule in zip(charts, histograms, strict=True)],
    )


def _answers(report: Mapping[str, Any]) -> list[dict[str, str]]:
    total, languages = report["total"], report["languages"]
    whole = max(total["read"], 1)
    empty = sum(not entry["kept"] for entry in languages.values())
    size = total["kept_bytes"] / 1e6
    return [
        _answer(f"{total['kept'] / whole:.1%}", "Documents kept",
                f"{total['kept']:,} of {total['read']:,}, {size:,.1f} MB"),
        _answer(f"{len(languages) - empty:,}", "Languages",
                f"nothing was kept of {empty:,} more" if empty else "something was kept of each"),
        _answer(f"{total['masked']:,}", "Personal data", "pieces that were masked"),
        _answer(f"{total['unreadable']:,}", "Unreadable", "records that could not be read"),
    ]  # fmt: skip


def _answer(value: str, title: str, detail: str) -> dict[str, str]:
    return {"title": title, "value": value, "detail": detail, "kind": ""}


def _kept_by_language(
    languages: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> Figure | None:
    """Bars of the documents kept and rejected of each language, the largest on top."""
    codes = sorted(languages, key=lambda code: -languages[code]["read"])
    kept = [languages[code]["kept"] for code in codes]
    rejected = [languages[code]["read"] - n for code, n in zip(codes, kept, strict=True)]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "x": values,
            "y": [names[code] for code in codes],
            "marker": {"color": colour},
            "hovertemplate": f"%{{y}}: %{{x:,}} {name.lower()}<extra></extra>",
        }
        for name, values, colour in (
            ("Kept", kept, COLOURS["high"]),
            ("Rejected", rejected, COLOURS["low"]),
        )
    ]
    y = {"autorange": "reversed", "automargin": True, "dtick": 1}
    return chart(traces if codes else [], 130 + 20 * len(codes), axis("documents"), y, stacked=True)


def _histograms(found: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """A chart for each rule: the scores of documents in each language, of which the page shows one.

    The bounds of the rule are marked.
    """
    codes = list(dict.fromkeys(one["language"] for one in found))
    drawn = {}
    for rule in dict.fromkeys(one["rule"] for one in found):
        traces, bounds = [], [[] for _ in codes]
        for one in found:
            if one["rule"] != rule:
                continue
            choice = codes.index(one["language"])
            bounds[choice] = [b for b in (one["least"], one["most"]) if b is not None]
            traces.append(
                {
                    "type": "bar",
                    "name": rule,
                    "x": [value for value, _ in one["counts"]],
                    "y": [count for _, count in one["counts"]],
                    "marker": {"color": COLOURS["high"]},
                    "hovertemplate": "%{x}: %{y:,}<extra></extra>",
                    "showlegend": False,
                    "meta": {"choice": choice},
                }
            )
        options = {"choices": codes, "shared": "language", "bounds": bounds}
        drawn[rule] = chart(traces, 220, axis("score"), axis("documents"), **options)
    return drawn
