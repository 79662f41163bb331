"""One self-contained HTML page of a sweep, from the files that it has written."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from html import escape
from typing import Any

from marco_jax.ablation import sweep_charts as figures
from marco_jax.ablation.proxies import STATUS, target_values
from marco_jax.ablation.sweep_charts import label_of
from marco_jax.evaluation.results import read_results
from marco_jax.files import write_text
from marco_jax.reports.charts import Figure
from marco_jax.reports.page import chart, render, table
from marco_jax.training.metrics_log import read_metrics

REPORT = "report.html"
# Points of a loss curve, each the mean of its part of the run.
_POINTS = 40


def write_sweep_report(directory: pathlib.Path) -> pathlib.Path:
    """Writes report.html into a sweep's workdir; what is not there yet is left out.

    Raises:
        FileNotFoundError: the workdir has no analysis.
    """
    analysis = json.loads((directory / "analysis.json").read_text(encoding="utf-8"))
    confirmation = _read(directory / "confirmation.json")
    runs = _figures(directory / "proxies")
    charts: dict[str, Figure] = {}
    sections = [
        f"<h1>{escape(directory.name)}: which mixture?</h1>",
        _proposal(analysis, charts),
        _confirmation(confirmation),
        _fits(analysis, runs, charts),
        _two_stages(runs),
        chart(
            charts, "losses", figures.loss_curves(_losses(directory)), "Training loss",
            "Each run's on its own mixture: lower is no better. Grey lines are random mixtures.",
        ),
        _status(directory / "proxies"),
    ]  # fmt: skip
    body = "\n".join(section for section in sections if section)
    path = directory / REPORT
    write_text(path, render(f"marco_jax: {directory.name}", body, charts))
    return path


def _proposal(analysis: Mapping[str, Any], charts: dict[str, Figure]) -> str:
    proposal, objective = analysis["proposal"], analysis["objective"]
    if proposal["weights"] is None:
        return f"<p>No proposal: {escape(proposal['reason'])}.</p>"
    wanted = ", ".join(map(label_of, objective["targets"]))
    held = ", ".join(f"{label_of(t)} {rise:+.1%}" for t, rise in objective["bounds"].items())
    rows = []
    for name in {**objective["targets"], **objective["bounds"]}:
        change = proposal["predicted"][name] / proposal["before"][name] - 1
        low, high = proposal["ranges"][name]
        rows.append(_row(label_of(name), f"{change:+.2%}", f"{low - 1:+.2%} to {high - 1:+.2%}"))
    bound = next(iter(objective["bounds"]), None)
    curve = figures.trade_off_curve(analysis["trade_off"], objective["targets"], bound)
    return "\n".join(
        [
            f"<p>To improve: {escape(wanted)}. May get worse by: {escape(held) or 'nothing set'}. "
            f"<code>--config.mixture.override={escape(proposal['override'])}</code></p>",
            chart(
                charts, "mixture", figures.mixture_bars(analysis["prior"], proposal), "Mixture",
                "Bars are the joint 95% interval of the optimum.",
            ),
            "<h2>Predicted change against the prior</h2>",
            table(["Target", "predicted", "95% interval"], rows, "predicted"),
            chart(
                charts, "trade_off", curve, "Gain against forgetting",
                "The optimum for several bounds on the first bounded target.",
            ),
        ]
    )  # fmt: skip


def _confirmation(found: Mapping[str, Any] | None) -> str:
    if not found or not found["changes"]:
        return ""
    rows = []
    for change in found["changes"]:
        around = f" ± {change['half_width']:.2%}" if change["half_width"] is not None else ""
        low, high = change["predicted_range"]
        rows.append(
            _row(
                label_of(change["target"]),
                f"{change['predicted']:+.2%}<small>{low:+.2%} to {high:+.2%}</small>",
                f"{change['mean']:+.2%}{around}",
                *(f"{value:+.2%}" for value in change["measured"]),
            )
        )
    head = ["Target", "predicted", "measured", *(f"seed {n}" for n in found["seeds"])]
    title = f"Confirmation: {found['steps']:,} steps, {len(found['seeds'])} seeds"
    return f"<h2>{title}</h2><p>The proposal against the prior.</p>{table(head, rows, 'confirm')}"


def _fits(analysis: Mapping[str, Any], runs: Mapping[str, Any], charts: dict[str, Figure]) -> str:
    fits = analysis["fits"]
    rows = [
        _row(
            label_of(name),
            f"{fit['rank_correlation']:.3f}",
            f"{fit['error']:.4f}",
            f"{fit['error_of_mean']:.4f}",
            "" if fit["predicts"] else "no better than the mean",
        )
        for name, fit in fits.items()
    ]
    head = ["Target", "rank correlation", "error, left out", "of the mean", ""]
    effects = {name: fit["effects"] for name, fit in fits.items() if fit["effects"]}
    return "\n".join(
        [
            f"<h2>Fits</h2><p>Each run predicted from the others.</p>{table(head, rows, 'fits')}",
            chart(
                charts, "effects", figures.heat_map(effects), "What a point more does",
                "Change of each figure, in per cent, for one point more of a source, taken from "
                "the others in proportion. Blue is better; a dot marks intervals without zero.",
            ),
            chart(
                charts, "left_out", figures.left_out(fits, runs), "Predicted against measured",
                "Runs that the fit had not seen, relative to the prior's.",
            ),
        ]
    )  # fmt: skip


def _two_stages(runs: Mapping[str, Mapping[str, float]]) -> str:
    staged, flat = runs.get("two_stages"), runs.get("prior")
    if not staged or not flat:
        return ""
    rows = [
        _row(label_of(name), f"{flat[name]:.4f}", f"{value:.4f}", f"{value / flat[name] - 1:+.2%}")
        for name, value in staged.items()
        if name in flat
    ]
    head = ["Target", "the prior, one stage", "two stages", "change"]
    return f"<h2>Two stages against one</h2>{table(head, rows, 'stages')}"


def _status(root: pathlib.Path) -> str:
    rows = []
    for path in sorted(root.glob(f"*/{STATUS}")):
        state = _read(path) or {}
        seconds = f"{state.get('seconds', 0):,.0f}"
        rows.append(
            _row(
                path.parent.name, state.get("status", ""), seconds, escape(state.get("reason", ""))
            )
        )
    return f"<h2>Runs</h2>{table(['Run', 'status', 'seconds', 'fault'], rows, 'runs')}"


def _row(label: str, *cells: str) -> str:
    return f"<tr><td>{escape(label)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _figures(root: pathlib.Path) -> dict[str, dict[str, float]]:
    """Figures of each run after its last step."""
    found = {}
    for workdir in sorted(path for path in root.iterdir() if (path / "eval").is_dir()):
        steps = [int(path.stem) for path in (workdir / "eval").glob("*.json") if path.stem != "0"]
        if steps:
            found[workdir.name] = target_values(
                read_results(workdir / "eval" / f"{max(steps)}.json")
            )
    return found


def _losses(directory: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    """(tokens, mean loss) of parts of each run."""
    found = {}
    for path in sorted(directory.glob("proxies/*/metrics.jsonl")):
        rows = [row for row in read_metrics(path) if row.get("loss") is not None]
        size = max(1, len(rows) // _POINTS)
        parts = [rows[n : n + size] for n in range(0, len(rows), size)]
        found[path.parent.name] = [
            (part[-1]["tokens"], sum(row["loss"] for row in part) / len(part)) for part in parts
        ]
    return found


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
