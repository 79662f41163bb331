"""The data of a run: the global batch of any step, and how the mixture behind it changes.

Building it resolves the mixture of every stage, tokenises the sources that are not tokenised yet,
and packs them. After that `batch(step)` is a pure function of (sources, mixtures, seed, step), so
a restart replays nothing. Two things change it on the way: adaptive weights, and a checkpoint of
a run whose mixture was another one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from marco_jax.data.adaptive import Adaptive, AdaptiveOptions
from marco_jax.data.corpus import Corpus
from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.leaks import LeakFinder
from marco_jax.data.mixture_table import mixture_table
from marco_jax.data.mixtures import Mixture, Within, get_mixture, is_mixture_name, mixture_sources
from marco_jax.data.overrides import apply_override
from marco_jax.data.packed import PackedSource, pack_sources
from marco_jax.data.resume_order import describe_change, refuse_change
from marco_jax.data.run_stores import prepare_run
from marco_jax.data.store import TokenStore
from marco_jax.data.streamed import StreamedSource
from marco_jax.data.task_info import REGISTERED
from marco_jax.data.texts import TRAIN, hash_units
from marco_jax.files import write_json
from marco_jax.languages import names_in
from marco_jax.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


class PlannedStage(Protocol):
    """A stage of a run: its name, the name of its mixture, and its number of steps."""

    name: str
    mixture: str
    steps: int


class Plan(Protocol):
    """The stages of a run in order, and the sequences of a global batch."""

    stages: Sequence[PlannedStage]
    batch_rows: int


# Gives the reference model's log-probabilities, float32 [documents] by source, for its stores.
References = Callable[[Mapping[str, TokenStore]], dict[str, np.ndarray]]


class TrainingData:
    """Batches by step.

    Attributes:
        labels: names behind source ids, in order.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: pathlib.Path,
        corpus: Corpus,
        tokenizer: Tokenizer,
        plan: Plan,
        references: References | None = None,
        pairs_per_row: int = 1,
    ) -> None:
        """Tokenises what is not tokenised yet, and packs; this may take long.

        Args:
            config: `data_cache`, `seed`, `batch.length`, `mixture` and `feed` are read.
            workdir: tokens go to its data/ where `data_cache` is empty; mixture.json too.
            corpus: the text.
            tokenizer: of the model.
            plan: stages and batch size of the run.
            references: for preferences whose loss needs a reference model; None for others.
            pairs_per_row: preferences that a sequence may hold.

        Raises:
            ValueError: sources or mixtures that cannot be read.
        """
        self._config, self._workdir = config, workdir
        self._corpus, self._tokenizer = corpus, tokenizer
        self._stages, self._rows = list(plan.stages), plan.batch_rows
        infos = corpus.infos()
        mixtures = [stage.mixture for stage in plan.stages]
        # Sources of the corpus that a stage reads.
        self._wanted = {
            source
            for name in mixtures
            if is_mixture_name(name)
            for source in mixture_sources(name, infos)
        }
        # A run that was killed leaves it: what it read is verified whole then.
        self._mark = workdir / f".reading-{jax.process_index()}"
        stores, self._rates = prepare_run(
            *(config, workdir, corpus, tokenizer, mixtures, sorted(self._wanted)),
            evaluated_tasks(config),
            verify=config.feed.verify or self._mark.exists(),
        )
        self._mark.touch()
        self._wanted |= {source for rates in self._rates.values() for source in rates}
        self._packed = pack_sources(
            {**stores, **self._streams()},
            length=config.batch.length,
            seed=config.seed,
            eos_id=tokenizer.eos_id,
            references=references(stores) if references else None,
            pairs_per_row=pairs_per_row,
        )
        self._feed = self._configured = build_feed(
            self._packed,
            self._mix(),
            length=config.batch.length,
            batch_rows=plan.batch_rows,
            seed=config.seed,
        )
        self.labels = self._feed.labels
        options = AdaptiveOptions(**config.mixture.adaptive.to_dict())
        self._adaptive = Adaptive(options) if options.every else None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions of a global batch."""
        return self._rows, self._config.batch.length

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Rows of the global batch of a step (counted from 0): see `Feed.batch`."""
        return self._feed.batch(step, rows)

    def batches(
        self, first: int, stop: int, layout: jax.sharding.Sharding
    ) -> Iterator[dict[str, jax.Array]]:
        """Global batches of the steps first..stop on the mesh, made ahead in a thread.

        Each process reads the rows that its own devices hold.

        Args:
            first: step, counted from 0.
            stop: the step after the last one.
            layout: of arrays [batch, length].
        """
        rows = _local_rows(layout, self.shape)
        with contextlib.closing(self.host_batches(first, stop, rows)) as batches:
            for arrays in batches:
                yield {
                    name: jax.make_array_from_callback(
                        self.shape, layout, lambda index, a=array: a[_within(index, rows)]
                    )
                    for name, array in arrays.items()
                }

    def host_batches(
        self, first: int, stop: int, rows: slice
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """Rows of the global batches of the steps first..stop, made ahead in a thread."""
        fields = self._config.feed
        return self._feed.iterate(
            first, stop, rows, prefetch=fields.prefetch, timeout=fields.timeout_seconds or None
        )

    def describe_batch(self, step: int) -> list[str]:
        """Source and documents of each row of the global batch of a step (counted from 0)."""
        return self._feed.describe_batch(step)

    def observe(self, row: Mapping[str, Any]) -> None:
        """Takes a line of metrics, whose losses adaptive weights follow."""
        if self._adaptive:
            self._adaptive.observe(row)

    @property
    def is_adaptive(self) -> bool:
        """Whether weights follow the losses (`config.mixture.adaptive`)."""
        return self._adaptive is not None

    def adapt(self, step: int) -> dict[str, float]:
        """Changes the weights after `step` steps where they are due; returns the new shares."""
        if not self._adaptive or not self._adaptive.due(step):
            return {}
        shares = self._feed.shares(step)
        new = self._adaptive.change(step, self._configured.shares(step), shares)
        if new != shares:
            self._feed = self._feed.reweighted(step, new)
        return new

    def next_change(self, step: int) -> int:
        """The next step after `step` at which weights may change: the last if they never do."""
        if not self._adaptive:
            return self._config.steps
        every = self._adaptive.options.every
        ends = np.cumsum([stage.steps for stage in self._stages]).tolist()
        return min((step // every + 1) * every, *(end for end in ends if end > step))

    def shares(self, step: int) -> dict[str, float]:
        """The share of each source at a step (counted from 0)."""
        return self._feed.shares(step)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint after `step` steps keeps of the order of the data: plain data."""
        state = self._feed.state(step)
        if self._adaptive:
            state["adaptive"] = self._adaptive.state() | {"configured": self._configured.order()}
        return state

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Continues the order of a checkpoint after `step` steps, given its `state`.

        Raises:
            OrderChanged: the order is another one now, and mixture.accept_change is not set.
        """
        if not state:
            _log.info("the checkpoint does not record the order of the data: the present one holds")
            return
        adapted = state.get("adaptive") if self._adaptive else None
        if adapted:
            self._adaptive.restore(adapted)
            # Weights have moved since; what is compared are those that they set out from.
            moved, state = state, {**state, "order": adapted["configured"]}
        feed, changes = self._configured.resumed(state, step)
        if changes and not self._config.mixture.accept_change:
            refuse_change(changes)
        if changes:
            changes += describe_change(state, self._configured.order())
        for line in changes:
            _log.info(f"the data's order changes at step {step}: {line}")
        self._feed = feed.continued(moved) if adapted and not changes else feed

    def close(self) -> None:
        """Notes that the run has ended in order."""
        self._mark.unlink(missing_ok=True)

    def record(self) -> None:
        """Writes mixture.json, and logs what each source holds and how often it is read."""
        described = self._feed.describe()
        if jax.process_index() == 0:
            write_json(self._workdir / "mixture.json", described)
        lines, warnings = mixture_table(described, self._config.mixture.max_epochs)
        for line in lines:
            _log.info(line)
        for line in warnings:
            _log.warning(line)

    def _streams(self) -> dict[str, StreamedSource]:
        """The sources that are tokenised as they are read."""
        names = [info.name for info in self._corpus.infos() if info.streamed]
        return {name: self._stream(name) for name in names if name in self._wanted}

    def _stream(self, name: str) -> StreamedSource:
        _log.info(
            f"{name} is streamed: a restart goes through the records before its place again, and "
            "reads the same rows; other sources start at any step at once"
        )
        corpus = self._corpus
        finder = LeakFinder(corpus.held_out_texts())

        def texts() -> Iterator[str]:
            for document in corpus.documents(name, TRAIN):
                if not finder.find(hash_units([document]).tolist()):
                    yield document.text

        return StreamedSource(
            name,
            texts,
            self._tokenizer,
            f"{corpus.source_fingerprint(name)}-{self._tokenizer.fingerprint}",
            self._config.batch.length,
            self._config.seed,
        )

    def _mix(self) -> list[Stage]:
        """The stages with their mixtures."""
        # Target tokens of an epoch, where they are known.
        sizes = {n: s.targets for n, s in self._packed.items() if isinstance(s, PackedSource)}
        stages, read = [], dict.fromkeys(self._wanted, 0.0)
        for stage in self._stages:
            budget = float(stage.steps * self._rows * self._config.batch.length)
            mixture = self._mixture(stage, sizes, budget, read)
            stages.append(Stage(stage.name, mixture, stage.steps))
            for name, share in mixture.shares.items():
                read[name] += share * budget
        return stages

    def _mixture(
        self,
        stage: PlannedStage,
        sizes: Mapping[str, int],
        budget: float,
        read: Mapping[str, float],
    ) -> Mixture:
        """The mixture of a stage of `budget` tokens, after `read` tokens of each source."""
        fields, infos = self._config.mixture, self._corpus.infos()
        within = Within(fields.within, fields.temperature, fields.max_epochs)
        if stage.mixture in self._rates:
            mixture = self._registered(stage.mixture, sizes)
        else:
            mixture = get_mixture(stage.mixture, infos, within, sizes, budget, read)
        for note in mixture.notes:
            _log.info(f"mixture {stage.mixture}: {note}")
        shares = apply_override(mixture.shares, fields.override, infos, stage.name, self._wanted)
        changes = [
            f"{name} {mixture.shares[name]:.4%} -> {share:.4%}"
            for name, share in shares.items()
            if not math.isclose(share, mixture.shares[name], rel_tol=1e-9)
        ]
        if not changes:
            return mixture
        note = f"mixture.override in stage {stage.name}: {', '.join(changes)}"
        _log.info(note)
        return mixture.with_shares(shares, note)

    def _registered(self, name: str, sizes: Mapping[str, int]) -> Mixture:
        """A user's mixture, its rates as shares of target tokens."""
        shares = dict(self._rates[name])
        if self._config.mixture.rates == "examples":
            for source in shares:
                if source not in sizes:
                    raise ValueError(
                        f"mixture.rates is 'examples', and the size of {source!r} is not known: "
                        "prepare it instead of streaming it"
                    )
                shares[source] *= sizes[source] / len(self._packed[source].store.lengths)
        total = sum(shares.values())
        return Mixture(name, {source: share / total for source, share in shares.items()})


def evaluated_tasks(config: ConfigDict) -> list[str]:
    """Names of the tasks in SeqIO's registry that `evaluation.tasks` names, "seqio:NAME"."""
    names = (name.removesuffix("?") for name in names_in(config.evaluation.tasks))
    return [name.removeprefix(REGISTERED) for name in names if name.startswith(REGISTERED)]


def _local_rows(layout: jax.sharding.Sharding, shape: tuple[int, int]) -> slice:
    """The rows of the global batch that this process's devices hold."""
    indices = layout.addressable_devices_indices_map(shape).values()
    bounds = [index[0].indices(shape[0])[:2] for index in indices]
    return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))


def _within(index: tuple[slice, ...], rows: slice) -> tuple[slice, ...]:
    """A global index, made relative to the rows that this process has read."""
    start = index[0].start or 0
    stop = rows.stop if index[0].stop is None else index[0].stop
    return (slice(start - rows.start, stop - rows.start), *index[1:])
