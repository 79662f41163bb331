"""Runs the curation stages as consecutive Apache Beam jobs, which exchange files in a directory."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from marco_jax.curation import boilerplate, joins, stages
from marco_jax.curation.inputs import Part
from marco_jax.curation.stages import Job
from marco_jax.extras import optional
from marco_jax.runtime.progress import Progress

with optional():
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

# The runner of this machine.
LOCAL = "local"


class BeamEngine:
    """A Beam runner with its options."""

    def __init__(self, runner: str, options: Sequence[str], workers: int) -> None:
        """Sets up a runner.

        Args:
            runner: "local", or the name of a Beam runner.
            options: Beam options, e.g. `--flink_master=...`.
            workers: processes of the local runner.
        """
        self._options = list(options)
        self._runner: Any = runner
        if runner == LOCAL:
            from apache_beam.runners.portability.fn_api_runner import FnApiRunner

            self._runner = FnApiRunner()
            if workers > 1:
                self._options += [
                    f"--direct_num_workers={workers}",
                    "--direct_running_mode=multi_processing",
                ]

    def each(self, function: Callable[[Any], None], elements: Sequence[Any]) -> None:
        """Calls a function for each element, on any worker."""
        if not elements:
            return
        stage = function.func.__name__
        with (
            Progress(f"curating, {stage}"),
            beam.Pipeline(runner=self._runner, options=PipelineOptions(self._options)) as pipeline,
        ):
            (pipeline | beam.Create(list(elements), reshuffle=True) | stage >> beam.Map(function))


def run(engine: BeamEngine, parts: list[Part], job: Job) -> None:
    """Runs all stages; writes shards, counts and rejects to the job's directory."""

    def each(function: Callable, elements: Sequence[Any], **others: Any) -> None:
        engine.each(functools.partial(function, job=job, **others), elements)

    each(stages.read_part, parts)
    each(stages.collect_boilerplate, range(boilerplate.PARTS))
    each(stages.judge_chunk, job.chunks())
    each(joins.link_column, range(joins.COLUMNS + 1))
    with Progress("curating, resolve duplicates"):
        joins.resolve_duplicates(job)
    if job.similarity is None:
        each(joins.train_lexicon, joins.pair_languages(job))
    joins.resolve_pair_duplicates(job)
    each(stages.finish_chunk, job.chunks())
    for kind in ("docs", "pairs", "rejects"):
        each(stages.merge_shard, _shards(job, kind), target=job.work / kind)


def _shards(job: Job, kind: str) -> list[tuple[str, str]]:
    folder: pathlib.Path = job.work / "pieces" / kind
    return [(kind, path.name) for path in sorted(folder.glob("*"))]
