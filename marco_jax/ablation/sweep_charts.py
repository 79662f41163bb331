"""The charts of a sweep's page, as plotly figures in plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.reports.charts import COLOURS, STAGE_COLOURS, Figure
from marco_jax.reports.run_data import name_of


def label_of(target: str) -> str:
    """A target in print: the language, after its task where that is not bits per byte."""
    task, _, language = target.rpartition("/")
    name = name_of(language)
    return name if task.startswith("bits_per_byte") else f"{name}, {task}"


def change_bars(
    before: Mapping[str, float], changes: Mapping[str, Mapping[str, Sequence[float]]]
) -> Figure:
    """Mean change of each language under several columns, with the range over seeds."""
    codes = list(before)
    traces = []
    for number, (column, found) in enumerate(changes.items()):
        means = [sum(found[code]) / len(found[code]) for code in codes]
        above = [max(found[code]) - mean for code, mean in zip(codes, means, strict=True)]
        below = [mean - min(found[code]) for code, mean in zip(codes, means, strict=True)]
        traces.append(
            {
                "type": "bar",
                "name": column,
                "x": [name_of(code) for code in codes],
                "y": means,
                "marker": {"color": STAGE_COLOURS[number % len(STAGE_COLOURS)]},
                "error_y": {"type": "data", "array": above, "arrayminus": below,
                            "symmetric": False, "thickness": 1.5, "width": 3},
                "hovertemplate": "%{x}, %{fullData.name}: %{y:+.2%}<extra></extra>",
            }
        )  # fmt: skip
    return _figure(traces, 420, {}, {"tickformat": "+.0%", "title": {"text": "change"}})


def heat_map(effects: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure | None:
    """What a point more of each unit does to each target, in per cent; blue is better.

    Args:
        effects: by target and unit: estimate, and the ends of its interval.
    """
    if not effects:
        return None
    targets, units = list(effects), list(next(iter(effects.values())))
    values = [[effects[target][unit][0] for unit in units] for target in targets]
    sure = [
        ["" if effects[t][u][1] <= 0 <= effects[t][u][2] else "•" for u in units] for t in targets
    ]
    ends = [["{1:+.3f} to {2:+.3f}".format(*effects[t][u]) for u in units] for t in targets]
    most = max((abs(value) for row in values for value in row), default=1.0) or 1.0
    trace = {
        "type": "heatmap",
        "x": units,
        "y": [label_of(target) for target in targets],
        "z": values,
        "text": sure,
        "texttemplate": "%{text}",
        "customdata": ends,
        "zmin": -most,
        "zmax": most,
        "colorscale": [[0, COLOURS["high"]], [0.5, "#f2f2f2"], [1, COLOURS["low"]]],
        "colorbar": {"title": {"text": "%"}},
        "hovertemplate": "%{x} on %{y}: %{z:+.3f}% (%{customdata})<extra></extra>",
        "showlegend": False,
    }
    layout = {"autorange": "reversed", "automargin": True, "dtick": 1}
    return _figure([trace], 180 + 26 * len(targets), {"automargin": True}, layout)


def left_out(fits: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Any]) -> Figure:
    """Predicted against measured figures of left-out runs, each relative to the prior's."""
    traces, ends = [], []
    for number, (target, fit) in enumerate(fits.items()):
        measured = {name: figures[target] for name, figures in runs.items() if target in figures}
        names = [name for name in fit["left_out"] if name in measured]
        whole = measured.get("prior") or sum(measured.values()) / len(measured)
        x = [measured[name] / whole - 1 for name in names]
        y = [fit["left_out"][name] / whole - 1 for name in names]
        ends += x + y
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label_of(target),
                "x": x,
                "y": y,
                "text": names,
                "marker": {"size": 6, "opacity": 0.75,
                           "color": f"hsl({(number * 137) % 360}, 55%, 50%)"},
                "hovertemplate": "%{text}, %{fullData.name}: predicted %{y:+.2%}, "
                "measured %{x:+.2%}<extra></extra>",
            }
        )  # fmt: skip
    span = [min(ends, default=0.0), max(ends, default=0.0)]
    line = {
        "type": "scatter", "mode": "lines", "x": span, "y": span, "showlegend": False,
        "hoverinfo": "skip", "line": {"color": COLOURS["average"], "dash": "dot", "width": 1},
    }  # fmt: skip
    axis = {"tickformat": "+.0%"}
    return _figure(
        [line, *traces], 480, {**axis, "title": {"text": "measured, against the prior"}},
        {**axis, "title": {"text": "predicted"}},
    )  # fmt: skip


def trade_off_curve(
    curve: Sequence[Mapping[str, Any]], objective: Mapping[str, float], bound: str
) -> Figure | None:
    """Predicted mean change of the objective, against the predicted change of one bound."""
    if not curve:
        return None
    total = sum(objective.values())
    x = [point["changes"][bound] for point in curve]
    y = [
        sum(share * point["changes"][name] for name, share in objective.items()) / total
        for point in curve
    ]
    order = sorted(range(len(x)), key=x.__getitem__)
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [x[n] for n in order],
        "y": [y[n] for n in order],
        "text": [f"allowed {curve[n]['rise']:+.2%}" for n in order],
        "line": {"color": COLOURS["low"], "width": 2},
        "showlegend": False,
        "hovertemplate": "%{text}: " + label_of(bound) + " %{x:+.2%}, objective %{y:+.2%}"
        "<extra></extra>",
    }
    return _figure(
        [trace], 360,
        {"tickformat": "+.2~%", "title": {"text": f"predicted change of {label_of(bound)}"}},
        {"tickformat": "+.2~%", "title": {"text": "of the objective"}},
    )  # fmt: skip


def mixture_bars(prior: Mapping[str, float], proposal: Mapping[str, Any]) -> Figure:
    """Weights of the prior and of the proposal, with its interval."""
    units = list(prior)
    traces = [_bars("prior", units, prior, COLOURS["average"])]
    if proposal["weights"]:
        weights, low, high = (proposal[name] for name in ("weights", "low", "high"))
        bars = _bars("proposal", units, weights, COLOURS["high"])
        bars["error_y"] = {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4,
            "array": [high[u] - weights[u] for u in units],
            "arrayminus": [weights[u] - low[u] for u in units],
        }  # fmt: skip
        traces.append(bars)
    return _figure(traces, 380, {"automargin": True}, {"tickformat": ".0%", "rangemode": "tozero"})


def loss_curves(runs: Mapping[str, Sequence[tuple[int, float]]]) -> Figure | None:
    """Training loss of every run over tokens; the runs that have names of their own stand out."""
    traces = []
    for name, points in runs.items():
        if not points:
            continue
        named = not name.startswith("random")
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": [tokens for tokens, _ in points],
                "y": [loss for _, loss in points],
                "line": {"width": 2.5 if named else 1,
                         **({} if named else {"color": COLOURS["average"]})},
                "opacity": 1 if named else 0.5,
                "showlegend": named,
                "hovertemplate": "%{fullData.name}: %{y:.3f}, %{x:,} tokens<extra></extra>",
            }
        )  # fmt: skip
    if not traces:
        return None
    return _figure(
        traces, 420, {"title": {"text": "tokens"}}, {"title": {"text": "loss, nats per token"}}
    )


def _bars(name: str, units: Sequence[str], weights: Mapping[str, float], colour: str) -> Figure:
    return {
        "type": "bar",
        "name": name,
        "x": list(units),
        "y": [weights[unit] for unit in units],
        "marker": {"color": colour},
        "hovertemplate": "%{x}, " + name + ": %{y:.2%}<extra></extra>",
    }


def _figure(
    traces: Sequence[Figure], height: int, x: Mapping[str, Any], y: Mapping[str, Any]
) -> Figure:
    layout = {
        "height": height,
        "xaxis": dict(x),
        "yaxis": {"automargin": True, **y},
        "hovermode": "closest",
        "barmode": "group",
    }
    return {"data": list(traces), "layout": layout}
