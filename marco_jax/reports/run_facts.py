"""The head of a run's page: facts of the run, the answers a reader comes for, changed fields."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

from marco_jax.evaluation.paired_differences import Difference
from marco_jax.evaluation.results import ALL, HIGH, LOW
from marco_jax.reports.charts import COLOURS, PALETTE
from marco_jax.reports.labels import metric_label, task_label
from marco_jax.reports.page import Cell, cell
from marco_jax.reports.run_charts import main_tasks
from marco_jax.reports.run_data import Milestone, RunData, group_of, name_of, realised_shares
from marco_jax.reports.summary import STYLES, style_of

_BITS = ("bits_per_byte", "bits_per_byte")
_GROUPS = ((LOW, "Low-resource languages"), ("en", "English"), (HIGH, "High-resource languages"))
# A difference beyond so many standard errors is coloured.
CLEAR = 2.0
# Shares of all tokens: a difference below the first is not worth a word, one above the second bad.
_AS_ASKED, _OFF = 0.005, 0.02


def run_facts(run: RunData) -> list[tuple[str, str]]:
    """Pairs of a label and a value; what the run has not recorded is left out."""
    found = run.environment
    commit = str(found.get("commit") or "")[:10]
    changed = " with uncommitted changes" if commit and found.get("modified") else ""
    started = run.attempts[0].start if run.attempts else found.get("started")
    hosts, devices = (
        value if isinstance(value := found.get(name), int) else 0 for name in ("hosts", "devices")
    )
    versions = found.get("versions")
    facts = [
        ("Config", found.get("config")),
        ("Commit", commit and commit + changed),
        ("Started", _moment(started)),
        ("Last written", _moment(run.attempts[-1].end) if run.attempts else ""),
        ("Devices", devices and f"{devices:,} × {found.get('device_kind', 'unknown')}"),
        ("Hosts", hosts and f"{hosts:,}"),
        ("Price", _price(run)),
    ]
    if isinstance(versions, dict):
        facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v)))
    return [(label, str(value)) for label, value in facts if value]


def device_hours(run: RunData) -> float:
    """Hours of training, compilation, evaluation and checkpoints, times the devices."""
    devices = (run.metrics[-1].get("devices") if run.metrics else 0) or 0
    return sum(run.seconds().values()) / 3600 * devices


def _price(run: RunData) -> str:
    price = run.config.get("price_per_device_hour")
    if not isinstance(price, int | float) or price <= 0:
        return ""
    return f"${price * device_hours(run):,.2f} at ${price:,.2f} a device-hour"


def _moment(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return ""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%-d %B %Y, %H:%M UTC")


def answers(run: RunData, differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """What a reader wants to know first, each with a title, a value, a detail and its kind.

    Did each group of languages gain, did benchmarks move, was the mixture as asked, where did the
    time go. `differences` are those of the last milestone from the first, on the same items. The
    kind is "good", "bad" or "" where the difference may be chance.
    """
    marks = run.milestones()
    found = []
    if len(marks) > 1:
        found += [_bits_answer(run, marks, *group) for group in _GROUPS]
        found += [
            _task_answer(run, marks, task, metrics[0], differences)
            for task, metrics in main_tasks(run)
        ]
    found += [_mixture_answer(run), _time_answer(run)]
    return [answer for answer in found if answer]


def _answer(title: str, value: str, detail: str, kind: str = "", **more: Any) -> dict[str, Any]:
    return {"title": title, "value": value, "detail": detail, "kind": kind, **more}


def _bits_answer(
    run: RunData, marks: Sequence[Milestone], group: str, title: str
) -> dict[str, Any] | None:
    """The change of a group's bits per byte, and how many of its languages gained."""
    first, last = (run.result(mark.step, *_BITS, group) for mark in (marks[0], marks[-1]))
    if not first or not last or not first.value:
        return None
    change = last.value / first.value - 1
    detail = f"bits per byte {first.value:.3f} → {last.value:.3f}"
    own = [code for code in run.languages(_BITS[0]) if group_of(code) == group]
    pairs = [
        [run.result(mark.step, *_BITS, code) for mark in (marks[0], marks[-1])] for code in own
    ]
    pairs = [pair for pair in pairs if all(pair)]
    if len(pairs) > 1:
        better = sum(after.value < before.value for before, after in pairs)
        detail += f"; {better} of {len(pairs)} languages better"
    kind = "" if not change else "good" if change < 0 else "bad"
    return _answer(title, f"{change:+.1%}", detail, kind)


def _task_answer(
    run: RunData,
    marks: Sequence[Milestone],
    task: str,
    metric: str,
    differences: Sequence[Difference],
) -> dict[str, Any] | None:
    """The change of a task's mean with its standard error, paired where items were kept."""
    rows = [
        (code, first, last)
        for code in (ALL, HIGH, LOW, *run.languages(task))
        if (first := run.result(marks[0].step, task, metric, code))
        and (last := run.result(marks[-1].step, task, metric, code))
    ]
    if not rows:
        return None
    code, first, last = rows[0]
    style = style_of(metric, [first.value, last.value])
    scale, digits, unit = STYLES[style]
    change, error = last.value - first.value, (first.stderr**2 + last.stderr**2) ** 0.5
    for one in differences:
        if (one.task, one.metric, one.language) == (task, metric, code):
            change, error = one.difference, one.stderr
    # nan compares as False.
    clear = abs(change) > CLEAR * error
    kind = "" if not clear else "good" if (change > 0) == (style != "relative") else "bad"
    noise = f" ± {error * scale:.{digits}f}" if error == error else ""
    detail = f"{metric_label(metric)}: {first.value * scale:.{digits}f}{unit} → "
    detail += f"{last.value * scale:.{digits}f}{unit}"
    if code not in (ALL, HIGH, LOW):
        detail += f", {name_of(code)}"
    return _answer(task_label(task), f"{change * scale:+.{digits}f}{noise}", detail, kind)


def _mixture_answer(run: RunData) -> dict[str, Any] | None:
    """The largest difference between a share that a stage asks for and what it has had."""
    realised, differences = realised_shares(run), []
    for stage in run.stages:
        had = realised[stage.name]
        if not had or not stage.shares:
            continue
        asked = stage.shares
        for source in {*asked, *had}:
            pair = asked.get(source, 0.0), had.get(source, 0.0)
            differences.append((abs(pair[1] - pair[0]), stage.label, source, *pair))
    if not differences:
        return None
    most, stage, source, asked, had = max(differences)
    detail = f"largest difference: {name_of(source)} in {stage}, asked {asked:.2%}, had {had:.2%}"
    value = "as asked" if most < _AS_ASKED else f"{most * 100:.1f} points off"
    kind = "good" if most < _AS_ASKED else "bad" if most > _OFF else ""
    return _answer("Mixture", value, detail, kind)


def _time_answer(run: RunData) -> dict[str, Any] | None:
    """Where the wall-clock went, with the parts of a bar."""
    seconds = {name: spent for name, spent in run.seconds().items() if spent > 0}
    whole = sum(seconds.values())
    if not whole:
        return None
    # The colours of good and bad news mean nothing here.
    tones = (COLOURS["high"], *(c for c in PALETTE if c != COLOURS["high"]))
    parts = [
        {"name": name, "share": spent / whole, "colour": tones[n % len(tones)]}
        for n, (name, spent) in enumerate(seconds.items())
    ]
    shown = sorted(parts, key=lambda part: -part["share"])[:3]
    detail = ", ".join(f"{part['name']} {part['share']:.0%}" for part in shown)
    minutes = whole / 60
    value = f"{minutes:,.1f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
    return _answer("Time", value, detail, parts=parts)


def differences_from_defaults(run: RunData) -> list[list[Cell]]:
    """Rows of the config's fields that differ from their defaults: name, default, value.

    Empty where the run has not recorded them.
    """
    changed = run.environment.get("changed")
    if not isinstance(changed, dict):
        return []
    rows = []
    for name, pair in sorted(changed.items()):
        if isinstance(pair, list) and len(pair) == 2:
            rows.append([cell(name), *(_plain(value) for value in pair)])
    return rows


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sample_rows(run: RunData) -> list[dict[str, Any]]:
    """The prompts of the newest samples, each with its language and its answers by step."""
    steps = sorted(run.samples)
    if not steps:
        return []
    rows = []
    for newest in run.samples[steps[-1]]:
        key = newest["language"], newest["prompt"]
        texts = [
            (step, str(row["text"]))
            for step in steps
            for row in run.samples[step]
            if (row["language"], row["prompt"]) == key
        ]
        name = name_of(str(newest["language"]))
        rows.append({"language": name, "prompt": str(newest["prompt"]), "texts": texts})
    return rows
