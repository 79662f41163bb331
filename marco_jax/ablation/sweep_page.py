"""The page of a sweep, from the files in its workdir."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from marco_jax.ablation.proxies import STATUS
from marco_jax.ablation.run_metrics import target_values
from marco_jax.evaluation.results import read_results
from marco_jax.files import write_text
from marco_jax.reports import charts
from marco_jax.reports.charts import COLOURS, Figure, axis
from marco_jax.reports.page import render_page
from marco_jax.reports.run_data import json_object_if_any, name_of, read_metrics

REPORT = "report.html"
# Points of a loss curve, each the mean of its part of the run.
_POINTS = 40


def write_sweep_report(directory: pathlib.Path) -> pathlib.Path:
    """Writes report.html into a sweep's workdir; missing parts are left out.

    Raises:
        FileNotFoundError: the workdir has no analysis.
    """
    analysis = json.loads((directory / "analysis.json").read_text(encoding="utf-8"))
    confirmation = json_object_if_any(directory / "confirmation.json")
    results = _results(directory / "proxies")
    fits = analysis["fits"].items()
    effects = {label_of(name): fit["effects"] for name, fit in fits if fit["effects"]}
    states = sorted(directory.glob(f"proxies/*/{STATUS}"))
    page = render_page(
        "sweep.html.jinja",
        {
            **(_proposal_charts(analysis) if analysis["proposal"]["weights"] else {}),
            "effects": charts.heat_map(effects),
            "left_out": _left_out(analysis["fits"], results),
            "losses": _losses(directory),
        },
        name=directory.name,
        label=label_of,
        analysis=analysis,
        confirmation=confirmation,
        seeds=[f"seed {number}" for number in confirmation.get("seeds", ())],
        results=results,
        states={path.parent.name: json_object_if_any(path) for path in states},
    )
    path = directory / REPORT
    write_text(path, page)
    return path


def label_of(target: str) -> str:
    """A target for readers: its language, with its task where that is not bits per byte."""
    task, _, language = target.rpartition("/")
    name = name_of(language)
    return name if task.startswith("bits_per_byte") else f"{name}, {task}"


def _proposal_charts(analysis: Mapping[str, Any]) -> dict[str, Figure | None]:
    """The proposed weights beside the prior's, and the change of the objective by bound."""
    proposal, objective = analysis["proposal"], analysis["objective"]["targets"]
    ends = {name: (proposal["low"][name], proposal["high"][name]) for name in proposal["weights"]}
    weights = [
        charts.bars("prior", analysis["prior"], COLOURS["average"], ".2%"),
        charts.bars("proposal", proposal["weights"], COLOURS["high"], ".2%", ends),
    ]
    y = {"tickformat": ".0%", "rangemode": "tozero"}
    found = {"mixture": charts.chart(weights, 380, {"automargin": True}, y)}
    if analysis["trade_off"]:
        bound = next(iter(analysis["objective"]["bounds"]))
        curve = sorted(analysis["trade_off"], key=lambda point: point["changes"][bound])
        changes = [point["changes"] for point in curve]
        total = sum(objective.values())
        trace = charts.line(
            "",
            [change[bound] for change in changes],
            [sum(w * change[name] for name, w in objective.items()) / total for change in changes],
            COLOURS["low"],
            marker=6,
            text=[f"allowed {point['rise']:+.2%}" for point in curve],
            showlegend=False,
        )
        hover = f"%{{text}}: {label_of(bound)} %{{x:+.2%}}, objective %{{y:+.2%}}"
        trace["hovertemplate"] = f"{hover}<extra></extra>"
        x = axis(f"predicted change of {label_of(bound)}", "+.2~%")
        found["trade_off"] = charts.chart([trace], 360, x, axis("of the objective", "+.2~%"))
    return found


def _left_out(
    fits: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Mapping[str, float]]
) -> Figure | None:
    """Predicted against measured metrics of left-out runs, each relative to the prior's."""
    traces, ends = [], [0.0]
    for number, (target, fit) in enumerate(fits.items()):
        measured = {
            name: results[target]
            for name, results in runs.items()
            if math.isfinite(results.get(target, math.nan))
        }
        names = [name for name in fit["left_out"] if name in measured]
        whole = measured.get("prior") or sum(measured.values()) / len(measured)
        x = [measured[name] / whole - 1 for name in names]
        y = [fit["left_out"][name] / whole - 1 for name in names]
        ends += x + y
        hover = "%{text}, %{fullData.name}: predicted %{y:+.2%}, measured %{x:+.2%}"
        colour = f"hsl({(number * 137) % 360}, 55%, 50%)"
        trace = charts.scatter(label_of(target), x, y, hover, size=6, opacity=0.75, color=colour)
        traces.append(trace | {"text": names})
    span = [min(ends), max(ends)]
    diagonal = charts.line(
        "", span, span, COLOURS["average"], 1, showlegend=False, hoverinfo="skip"
    )
    diagonal["line"]["dash"] = "dot"
    x = axis("measured, against the prior", "+.0%")
    return charts.chart([diagonal, *traces], 480, x, axis("predicted", "+.0%"))


def _results(root: pathlib.Path) -> dict[str, dict[str, float]]:
    """The metrics of each run after its last step."""
    found = {}
    for workdir in sorted(path for path in root.iterdir() if (path / "eval").is_dir()):
        steps = [int(path.stem) for path in (workdir / "eval").glob("*.json") if path.stem != "0"]
        if steps:
            found[workdir.name] = target_values(
                read_results(workdir / "eval" / f"{max(steps)}.json")
            )
    return found


def _losses(directory: pathlib.Path) -> Figure | None:
    """Training loss of every run over tokens; runs with names of their own stand out."""
    traces = []
    for path in sorted(directory.glob("proxies/*/metrics.jsonl")):
        rows = [
            row for row in read_metrics(path) if None not in (row.get("loss"), row.get("tokens"))
        ]
        size = max(1, len(rows) // _POINTS)
        parts = [rows[n : n + size] for n in range(0, len(rows), size)]
        tokens = [part[-1]["tokens"] for part in parts]
        losses = [sum(row["loss"] for row in part) / len(part) for part in parts]
        random = path.parent.name.startswith("random")
        style = {"showlegend": not random, "opacity": 0.5 if random else 1}
        style["hovertemplate"] = "%{fullData.name}: %{y:.3f}, %{x:,} tokens<extra></extra>"
        colour, width = (COLOURS["average"], 1) if random else (None, 2.5)
        if rows:
            traces.append(charts.line(path.parent.name, tokens, losses, colour, width, **style))
    return charts.chart(traces, 420, axis("tokens"), axis("loss, nats per token"))
