"""Reads the files of a run; what is missing or incomplete is left out, as in a run in progress."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from marco_jax.evaluation.results import AVERAGES, Result, read_results
from marco_jax.files import as_path, read_json_lines, read_json_object
from marco_jax.languages import LANGUAGES, add_config_languages, high_resource, low_resource
from marco_jax.runtime.attempts import CAUSES, Attempt, lost_and_productive, read_attempts

# The stage that later stages are compared with, where a run trains its own base.
BASE = "base"
_SAMPLE = {"language", "prompt", "text"}
STAGE_LABELS = {BASE: "Base", "stage1": "Stage-I", "stage2": "Stage-II"}


class StageSpan(NamedTuple):
    """A stage of the run: steps first_step + 1 to last_step, and the shares it asks for."""

    name: str
    first_step: int
    last_step: int
    shares: dict[str, float]

    @property
    def label(self) -> str:
        """The stage's name for readers."""
        return STAGE_LABELS.get(self.name, self.name)


class Milestone(NamedTuple):
    """A step whose results get a column: the start, or the last one evaluated in a stage."""

    name: str
    label: str
    step: int


@dataclasses.dataclass(frozen=True)
class RunData:
    """The contents of a workdir.

    Attributes:
        name: name of the directory.
        workdir: its path.
        config: the resolved config, {} when absent.
        metrics: rows of metrics.jsonl in order of step.
        evaluations: finite results by step and (task, metric, language).
        stages: in order; empty where neither mixture.json nor the metrics name any.
        checkpoints: steps with a checkpoint.
        attempts: starts of the run, with the seconds of each by cause.
        environment: what the newest attempt runs on: environment.json, {} when absent.
        samples: answers to the fixed prompts by step: rows of samples/<step>.json.
    """

    name: str
    workdir: pathlib.Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: dict[int, dict[tuple[str, str, str], Result]]
    stages: list[StageSpan]
    checkpoints: list[int] = dataclasses.field(default_factory=list)
    attempts: list[Attempt] = dataclasses.field(default_factory=list)
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    samples: dict[int, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    # What was read out of the rows before, since runs have hundreds of thousands of them.
    _columns: dict[str, np.ndarray] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @functools.cached_property
    def fields(self) -> list[str]:
        """The names of all fields of the metrics, sorted."""
        return sorted(set().union(*self.metrics))

    def column(self, name: str) -> np.ndarray:
        """A field of the metrics, nan in rows without a number there: float64 [rows]."""
        if name not in self._columns:
            found = [row.get(name) for row in self.metrics]
            numbers = [v if isinstance(v, int | float) else math.nan for v in found]
            self._columns[name] = np.array(numbers, np.float64)
        return self._columns[name]

    def rows_of(self, stage: StageSpan) -> np.ndarray:
        """Which rows of metrics are of a stage: bool [rows]."""
        steps = self.column("step")
        return (stage.first_step < steps) & (steps <= stage.last_step)

    def restarts(self) -> list[int]:
        """Steps after which the run was restarted: there the sums since the start fall back."""
        sums = ("compile_seconds", "checkpoint_seconds")
        return [
            after["step"] - 1
            for before, after in itertools.pairwise(self.rows_with(*sums))
            if any(after[name] < before[name] for name in sums)
        ]

    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds by activity, over all starts."""
        return {name: float(spent.sum()) for name, spent in self.seconds_of_rows().items()}

    def seconds_of_rows(self) -> dict[str, np.ndarray]:
        """Seconds by activity that each row of metrics adds: float64 [rows] each."""
        steps = np.nan_to_num(self.column("step_seconds"))
        parts = {"training steps": steps}
        for name in ("sampling", "rewards"):
            shares = np.nan_to_num(self.column(f"{name}_share"))
            if shares.any():
                parts[name] = steps * shares
                parts["training steps"] = parts["training steps"] - parts[name]
        for name in ("compile", "evaluation", "checkpoint"):
            sums = np.nan_to_num(self.column(f"{name}_seconds"))
            before = np.concatenate([[0.0], sums[:-1]])[: len(sums)]
            # A sum since the start: a restart begins it again.
            parts[name] = np.where(sums >= before, sums - before, sums)
        return parts

    def goodput(self) -> dict[str, float]:
        """Seconds since the first start by cause, named for readers; {} where none are recorded."""
        found = lost_and_productive(self.attempts)
        return {CAUSES[cause]: spent for cause, spent in found.items() if spent}

    def milestones(self) -> list[Milestone]:
        """The base and the last evaluation of each stage; the start where no stage is the base."""
        marks = [Milestone("start", "Start", 0)] if 0 in self.evaluations else []
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

    def rows_with(self, *names: str) -> list[dict[str, Any]]:
        """The rows of metrics that have a number in each of these fields."""
        return [
            row for row in self.metrics if all(isinstance(row.get(n), int | float) for n in names)
        ]

    def sources(self) -> list[str]:
        """Names of the sources that the metrics have a loss of."""
        return [name.removeprefix("loss/") for name in self.fields if is_of_source(name, "loss")]

    def result(self, step: int, task: str, metric: str, language: str) -> Result | None:
        """A result, or None where that was not evaluated."""
        return self.evaluations.get(step, {}).get((task, metric, language))

    def curve(
        self, task: str, metric: str, language: str, field: str = "value"
    ) -> tuple[list[int], list[float]]:
        """The steps and the values, or another field, of a metric's results."""
        found = {step: self.result(step, task, metric, language) for step in self.evaluations}
        found = {step: getattr(result, field) for step, result in found.items() if result}
        return list(found), list(found.values())

    def languages(self, task: str) -> list[str]:
        """Codes with results of a task, in the order of LANGUAGES, then unknown ones."""
        found = {
            language
            for results in self.evaluations.values()
            for name, _, language in results
            if name == task and group_of(language) != "average"
        }
        known = [code for code in LANGUAGES if code in found]
        return known + sorted(found - set(known))


def group_of(code: str) -> str:
    """The group of a language or source: "english", "high", "low", "average" or "other"."""
    if code == "en":
        return "english"
    if code in high_resource():
        return "high"
    if code in low_resource():
        return "low"
    return "average" if code in AVERAGES else "other"


def name_of(code: str) -> str:
    """The English name of a language code; the capitalised name of another source."""
    return LANGUAGES[code].name if code in LANGUAGES else code[:1].upper() + code[1:]


def load_run(workdir: str | os.PathLike) -> RunData:
    """Reads a workdir; missing or incomplete files count as empty.

    Languages that its config adds are known from then on.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    workdir = as_path(workdir)
    if not workdir.is_dir():
        raise NotADirectoryError(f"workdir {workdir} is not a directory: give the workdir of a run")
    config = json_object_if_any(workdir / "config.json")
    add_config_languages(config)
    metrics = read_metrics(workdir / "metrics.jsonl")
    return RunData(
        name=workdir.resolve().name,
        workdir=workdir,
        config=config,
        metrics=metrics,
        evaluations=_evaluations(workdir / "eval"),
        stages=_stages(json_object_if_any(workdir / "mixture.json"), metrics),
        checkpoints=sorted(
            int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdecimal()
        ),
        attempts=_attempts(workdir),
        environment=json_object_if_any(workdir / "environment.json"),
        samples=_samples(workdir / "samples"),
    )


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the rows of a metrics.jsonl in order of step; damaged lines are skipped.

    Of two rows of one step the newer counts: a run that went on has repeated that step.
    """
    rows = {row["step"]: row for row in read_json_lines(path) if isinstance(row.get("step"), int)}
    return [rows[step] for step in sorted(rows)]


def json_object_if_any(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object; gives {} for a file that is missing or is not an object."""
    try:
        return read_json_object(path)
    except (OSError, ValueError):
        return {}


def _attempts(workdir: pathlib.Path) -> list[Attempt]:
    try:
        return read_attempts(workdir)
    except (OSError, ValueError):
        return []


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


def _samples(directory: pathlib.Path) -> dict[int, list[dict[str, Any]]]:
    """The answers of each step that have all fields."""
    found = {}
    for step in sorted(int(p.stem) for p in directory.glob("*.json") if p.stem.isdecimal()):
        rows = json_object_if_any(directory / f"{step}.json").get("samples")
        rows = rows if isinstance(rows, list) else []
        rows = [row for row in rows if isinstance(row, dict) and set(row) >= _SAMPLE]
        if rows:
            found[step] = rows
    return found


def _stages(mixture: dict[str, Any], metrics: list[dict[str, Any]]) -> list[StageSpan]:
    """The stages that mixture.json plans; without it, those that the rows of metrics name."""
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
    named = [row for row in metrics if row.get("stage") is not None]
    for name, rows in itertools.groupby(named, key=lambda row: row["stage"]):
        first = spans[-1].last_step if spans else 0
        spans.append(StageSpan(name, first, max(row["step"] for row in rows), {}))
    return spans


def realised_shares(run: RunData) -> dict[str, dict[str, float]]:
    """The share of the target tokens that each source has had so far, by stage."""
    shares = {}
    names = [name for name in run.fields if is_of_source(name, "tokens")]
    for stage in run.stages:
        inside = run.rows_of(stage)
        counts = {name: float(np.nansum(run.column(name)[inside])) for name in names}
        whole = sum(counts.values())
        shares[stage.name] = {
            name.removeprefix("tokens/"): n / whole for name, n in counts.items() if n
        }
    return shares


def is_of_source(key: str, metric: str) -> bool:
    """Whether a field of metrics.jsonl is a metric of a source, not of one of its languages.

    A source has "loss/talks", its languages have "loss/talks/kk".
    """
    return key.startswith(f"{metric}/") and key.count("/") == 1
