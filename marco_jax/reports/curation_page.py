"""The page of a curation: no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import collections
from typing import Any

from marco_jax.languages import LANGUAGES
from marco_jax.reports.page import render_page

# The size of a histogram in pixels, without the labels below it.
WIDTH, HEIGHT = 230, 60


def curation_page(report: dict[str, Any]) -> str:
    """Renders the page of what `curate` returns."""
    reasons: collections.Counter[str] = collections.Counter()
    for entry in report["languages"].values():
        reasons.update(entry["rejected"])
    return render_page(
        "curation.html.jinja",
        None,
        report=report,
        names={
            code: f"{code} {LANGUAGES[code].name}" if code in LANGUAGES else code
            for code in report["languages"]
        },
        reasons=reasons.most_common(),
        histograms=[_histogram(histogram) for histogram in report["histograms"]],
    )


def _histogram(histogram: dict[str, Any]) -> dict[str, Any]:
    """The bars of counts and the lines of bounds, in pixels."""
    counts = histogram["counts"]
    bounds = [b for b in (histogram["least"], histogram["most"]) if b is not None]
    values = [value for value, _ in counts] + bounds
    low, high = min(values), max(values)
    scale = (WIDTH - 14) / ((high - low) or 1.0)
    most = max(count for _, count in counts)
    bars = []
    for value, count in counts:
        height = max(1.0, (HEIGHT - 14) * count / most)
        bar = {"x": 4 + (value - low) * scale, "y": HEIGHT - height, "height": height}
        bars.append({k: f"{v:.1f}" for k, v in bar.items()} | {"title": f"{value:g}: {count:,}"})
    limits = ", ".join(f"{bound:g}" for bound in bounds)
    return {
        "language": histogram["language"],
        "title": histogram["rule"] + (f" ({limits})" if limits else ""),
        "bars": bars,
        "bounds": [f"{4 + (bound - low) * scale:.1f}" for bound in bounds],
        "low": f"{low:g}",
        "high": f"{high:g}",
        "width": WIDTH,
        "height": HEIGHT,
    }
