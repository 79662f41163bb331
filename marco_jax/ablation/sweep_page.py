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
            "effects": _effects(effects),
            "left_out": _left_out(analysis["fits"], results),
            "losses": _losses(directory),
        },
        name=directory.name,
        label=label_of,
        analysis=analysis,
        curve=_trade_off_rows(analysis),
        answers=_answers(analysis),
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
    if curve := _trade_off(analysis):
        bound = next(iter(analysis["objective"]["bounds"]))
        trace = charts.line(
            "",
            [point["changes"][bound] for point in curve],
            [_gain(point["changes"], objective) for point in curve],
            COLOURS["low"],
            marker=8,
            text=[f"allowed {point['rise']:+.2%}" for point in curve],
            showlegend=False,
        )
        hover = f"%{{text}}: {label_of(bound)} %{{x:+.2%}}, objective %{{y:+.2%}}"
        trace["hovertemplate"] = f"{hover}<extra></extra>"
        x = axis(f"predicted change of {label_of(bound)}", "+.2~%")
        y = axis("of the objective", "+.2~%")
        found["trade_off"] = charts.chart([trace], 360, x, y, rows=True)
    return found


def _trade_off(analysis: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The points of the curve of gain against forgetting, along the first bounded target."""
    bounds = analysis["objective"]["bounds"]
    if not analysis["trade_off"] or not bounds:
        return []
    bound = next(iter(bounds))
    return sorted(analysis["trade_off"], key=lambda point: point["changes"][bound])


def _gain(changes: Mapping[str, float], objective: Mapping[str, float]) -> float:
    """The weighted mean of the changes of the targets."""
    return sum(w * changes[name] for name, w in objective.items()) / sum(objective.values())


def _trade_off_rows(analysis: Mapping[str, Any]) -> list[list[str]]:
    """A row for each point of the curve: allowed rise, both changes, and the mixture's override."""
    objective = analysis["objective"]
    return [
        [
            f"{point['rise']:+.2%}",
            f"{point['changes'][next(iter(objective['bounds']))]:+.2%}",
            f"{_gain(point['changes'], objective['targets']):+.2%}",
            point.get("override", ""),
        ]
        for point in _trade_off(analysis)
    ]


def _answers(analysis: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a reader wants to know first: the gain that is predicted, and whether bounds hold."""
    proposal, objective = analysis["proposal"], analysis["objective"]
    if proposal["weights"] is None:
        detail = {"detail": proposal["reason"], "kind": "bad"}
        return [{"title": "Proposal", "value": "none"} | detail]
    found = []
    for name in objective["targets"]:
        before = proposal["before"][name]
        low, high = (f"{ratio - 1:+.2%}" for ratio in proposal["ranges"][name])
        change = proposal["predicted"][name] / before - 1
        kind = "good" if proposal["ranges"][name][1] < 1 else ""
        value = {"value": f"{change:+.2%}", "kind": kind}
        found.append({"title": label_of(name), "detail": f"95% interval {low} to {high}"} | value)
    for name, share in (proposal.get("breaks") or {}).items():
        allowed = f"allowed {objective['bounds'][name]:+.2%}"
        kind = "good" if share <= 1 - objective["quantile"] else "bad"
        value = {"value": f"{share:.1%}", "kind": kind}
        found.append({"title": f"{label_of(name)} breaks its bound", "detail": allowed} | value)
    return found


def _effects(effects: Mapping[str, Mapping[str, list[float]]]) -> Figure | None:
    """What a point more of a source does to each target, in per cent; a dot marks sure effects."""
    if not effects:
        return None
    cells = {name: [value for value, _, _ in row.values()] for name, row in effects.items()}
    ends = [[(low, high) for _, low, high in row.values()] for row in effects.values()]
    trace = charts.heat_map(
        *(cells, list(next(iter(effects.values()))), "%{x} on %{y}: %{z:+.3f}% (%{customdata})"),
        centre=0.0,
        better="low",
        texts=[["" if low <= 0 <= high else "•" for low, high in row] for row in ends],
        customdata=[[f"{low:+.3f} to {high:+.3f}" for low, high in row] for row in ends],
        colorbar={"title": {"text": "%"}, "thickness": 12},
    )
    y = charts.LIST_AXIS | {"automargin": True}
    return charts.chart([trace], 180 + 26 * len(cells), {"automargin": True}, y)


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
        if not names:
            continue
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
