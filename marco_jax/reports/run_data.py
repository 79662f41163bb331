"""A run's files, read with patience: a report is wanted of runs in progress, too."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

from marco_jax.evaluation.results import Result, read_results
from marco_jax.files import read_json_lines
from marco_jax.languages import HIGH_RESOURCE, LANGUAGES, LOW_RESOURCE

# The stage whose end later stages are compared with, where a run trains its own base.
BASE = "base"
STAGE_LABELS = {BASE: "Base", "stage1": "Stage-I", "stage2": "Stage-II"}


@dataclasses.dataclass(frozen=True)
class StageSpan:
    """A stage of the run: steps first_step + 1 to last_step; asked shares by source."""

    name: str
    first_step: int
    last_step: int
    shares: dict[str, float]

    @property
    def label(self) -> str:
        """The stage's name in print."""
        return STAGE_LABELS.get(self.name, self.name)


@dataclasses.dataclass(frozen=True)
class Milestone:
    """The state of a run that is worth a column: its start, or the (so far) end of a stage."""

    name: str
    label: str
    step: int


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a workdir holds.

    Attributes:
        name: of the run: its directory's.
        config: the resolved config, {} when absent.
        metrics: lines of metrics.jsonl in step order.
        evaluations: finite results by step and (task, metric, language).
        stages: in order; empty where neither mixture.json nor the metrics name any.
        checkpoints: steps that are saved.
    """

    name: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: dict[int, dict[tuple[str, str, str], Result]]
    stages: list[StageSpan]
    checkpoints: list[int] = dataclasses.field(default_factory=list)

    def restarts(self) -> list[int]:
        """Steps that a new start went on from: sums since the start have fallen back there."""
        found, before = [], None
        for row in self.metrics:
            sums = [row.get(name) for name in ("compile_seconds", "checkpoint_seconds")]
            if None in sums:
                continue
            if before and (sums[0] < before[0] or sums[1] < before[1]):
                found.append(row["step"] - 1)
            before = sums
        return found

    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds by what they went to, over all starts."""
        names = ("compile", "evaluation", "checkpoint")
        parts = {"training steps": 0.0, **dict.fromkeys(names, 0.0)}
        before = dict.fromkeys(names, 0.0)
        for row in self.metrics:
            parts["training steps"] += row.get("step_seconds") or 0.0
            for name in names:
                total = row.get(f"{name}_seconds") or 0.0
                # A sum since the start: after a restart it begins again.
                parts[name] += total - before[name] if total >= before[name] else total
                before[name] = total
        return parts

    def milestones(self) -> list[Milestone]:
        """Base and the last evaluation of each stage; the start where no stage is the base."""
        marks = []
        if 0 in self.evaluations:
            marks.append(Milestone("start", "Start", 0))
        for stage in self.stages:
            inside = [s for s in self.evaluations if stage.first_step < s <= stage.last_step]
            if inside:
                step = max(inside)
                label = stage.label if step == stage.last_step else f"{stage.label}, step {step}"
                marks.append(Milestone(stage.name, label, step))
        if not self.stages:
            marks += [Milestone("", f"step {s}", s) for s in sorted(self.evaluations)[-1:] if s]
        names = [mark.name for mark in marks]
        return marks[names.index(BASE) :] if BASE in names else marks

    def figure(self, step: int, task: str, metric: str, language: str) -> Result | None:
        """A result, or None where that was not evaluated."""
        return self.evaluations.get(step, {}).get((task, metric, language))

    def series(self, task: str, metric: str, language: str) -> list[tuple[int, Result]]:
        """A figure over steps."""
        found = ((step, self.figure(step, task, metric, language)) for step in self.evaluations)
        return [(step, result) for step, result in found if result is not None]

    def languages(self, task: str) -> list[str]:
        """Codes with results of a task, in the paper's order, then unknown ones."""
        found = {
            language
            for results in self.evaluations.values()
            for name, _, language in results
            if name == task and group_of(language) != "average"
        }
        known = [code for code in LANGUAGES if code in found]
        return known + sorted(found - set(known))


def group_of(code: str) -> str:
    """Where a language or source belongs: "english", "high", "low", "average" or "other"."""
    if code == "en":
        return "english"
    if code in HIGH_RESOURCE:
        return "high"
    if code in LOW_RESOURCE:
        return "low"
    return "average" if code in ("all", "high", "low") else "other"


def name_of(code: str) -> str:
    """English name of a language code; other sources keep their name, capitalised."""
    return LANGUAGES[code].name if code in LANGUAGES else code[:1].upper() + code[1:]


def load_run(workdir: str | os.PathLike) -> RunData:
    """Reads a workdir; missing or half-written files count as empty.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise NotADirectoryError(f"workdir {workdir} is not a directory: give that of a run")
    metrics = read_metrics(workdir / "metrics.jsonl")
    return RunData(
        name=workdir.resolve().name,
        config=_json_object(workdir / "config.json"),
        metrics=metrics,
        evaluations=_evaluations(workdir / "eval"),
        stages=_stages(_json_object(workdir / "mixture.json"), metrics),
        checkpoints=sorted(
            int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdecimal()
        ),
    )


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the rows of a metrics.jsonl in order of step; damaged lines are skipped.

    Of two rows of one step the newer counts: a run that went on has repeated that step.
    """
    rows = {row["step"]: row for row in read_json_lines(path) if isinstance(row.get("step"), int)}
    return [rows[step] for step in sorted(rows)]


def _json_object(path: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _evaluations(directory: pathlib.Path) -> dict[int, dict[tuple[str, str, str], Result]]:
    steps = sorted(int(path.stem) for path in directory.glob("*.json") if path.stem.isdecimal())
    evaluations = {}
    for step in steps:
        try:
            results = read_results(directory / f"{step}.json")
        except ValueError:
            continue
        evaluations[step] = {
            (row.task, row.metric, row.language): row
            for row in results
            if math.isfinite(row.value) and not row.part
        }
    return evaluations


def _stages(mixture: dict[str, Any], metrics: list[dict[str, Any]]) -> list[StageSpan]:
    """Stages as planned in mixture.json; without it, as the metrics' lines name them."""
    spans: list[StageSpan] = []
    try:
        for stage in mixture.get("stages", ()):
            first = spans[-1].last_step if spans else 0
            shares = {source: float(share) for source, share in stage.get("shares", {}).items()}
            spans.append(StageSpan(stage["name"], first, first + int(stage["steps"]), shares))
        if spans:
            return spans
    except (KeyError, TypeError, ValueError, AttributeError):
        spans = []
    for row in metrics:
        name, step = row.get("stage"), row["step"]
        if name is None:
            continue
        if spans and spans[-1].name == name:
            spans[-1] = dataclasses.replace(spans[-1], last_step=step)
        else:
            spans.append(StageSpan(name, spans[-1].last_step if spans else 0, step, {}))
    return spans


def is_of_source(key: str, figure: str) -> bool:
    """Whether a field of metrics.jsonl is a source's `figure`, and not one of its languages'.

    A source's is "loss/talks", its languages' are "loss/talks/kk".
    """
    return key.startswith(f"{figure}/") and key.count("/") == 1
