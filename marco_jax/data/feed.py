"""The feed: the global batch at step n is a pure function of (sources, mixture, seed, n).

Every source is tokenised once and packed into rows (packed.py). Rows are mixed by index
(order.py), so any batch is asked for directly: nothing is replayed on a restart, and hosts
take rows by position.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.data.mixtures import Mixture
from marco_jax.data.order import Interleave
from marco_jax.data.packed import PackedSource, Rows
from marco_jax.data.packing import VERSION
from marco_jax.data.resume_order import START, Origin, resume_order
from marco_jax.data.store import PREFERENCES
from marco_jax.data.streamed import StreamedSource
from marco_jax.files import is_remote

FIELDS = ("tokens", "targets", "positions", "segment_ids", "source_ids")


# Rows that are read at the same time from an object store.
_READERS = 32


@functools.cache
def _readers() -> concurrent.futures.ThreadPoolExecutor:
    """The threads that read rows: those of all feeds of the process."""
    return concurrent.futures.ThreadPoolExecutor(_READERS, "rows")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Some steps of a run with one mixture."""

    name: str
    mixture: Mixture
    steps: int


class Feed:
    """Batches by step, and the mixture behind them."""

    def __init__(
        self,
        sources: Sequence[Rows],
        stages: Sequence[Stage],
        *,
        length: int,
        batch_rows: int,
        seed: int,
        origin: Origin = START,
    ) -> None:
        """Lays out the stages; reads nothing.

        Args:
            sources: those that a stage gives a share; their labels give the source ids.
            stages: in order.
            length: target tokens of a row.
            batch_rows: rows of a global batch.
            seed: of the order in which sources take turns.
            origin: where this order begins, after another one.
        """
        self.sources = tuple(source.name for source in sources)
        # Names behind source ids: a source, or each language of its documents.
        self.labels = tuple(label for source in sources for label in source.labels)
        counts = [len(source.labels) for source in sources]
        self._first_label = np.cumsum([0, *counts])[:-1].tolist()
        self.origin = origin
        self._packed = list(sources)
        self._stages = list(stages)
        self._length, self._batch_rows, self._seed = length, batch_rows, seed
        ends = np.cumsum([stage.steps for stage in stages]).tolist()
        # Steps of each stage that belong to this order.
        self._spans = [
            (max(start, origin.step), max(end, origin.step))
            for start, end in zip([0, *ends], ends, strict=False)
        ]
        self._interleaves = [
            Interleave(self._row_weights(stage.mixture), self._seed_of(number))
            for number, stage in enumerate(stages)
        ]
        # Rows of each source that earlier stages have used: a stage goes on where they stopped.
        begin = [origin.rows.get(name, 0) for name in self.sources]
        used = [
            interleave.counts((end - start) * batch_rows)
            for interleave, (start, end) in zip(self._interleaves, self._spans, strict=True)
        ]
        self._used = np.cumsum([np.array(begin, np.int64), *used], axis=0)
        self._reading = ""
        # Each read of an object store takes a while, so rows are read at the same time.
        remote = any(isinstance(s, PackedSource) and is_remote(s.store.directory) for s in sources)
        self._readers = _readers() if remote else None

    def resumed(self, state: Mapping[str, Any], step: int) -> tuple[Feed, list[str]]:
        """This feed as a run goes on with it after `step` steps.

        Args:
            state: what a checkpoint kept (`state`).
            step: of the checkpoint.

        Returns:
            the feed, and how its order differs from the one that was saved, a line each.
        """
        rows = {source.name: source.rows for source in self._packed}
        origin, changes = resume_order(state, self.order(), rows, step)
        for source in self._packed:
            if isinstance(source, StreamedSource):
                same = state["order"]["sources"].get(source.name) == source.fingerprint
                saved = state["rows"].get(source.name, {}).get("window")
                begin = {"number": 0, "row": origin.rows.get(source.name, 0)}
                same_rows = same and state["order"]["length"] == self._length
                source.seek(saved if saved and same_rows else begin | {"epoch": 0, "record": 0})
        return self._again(self._stages, origin), changes

    def shares(self, step: int) -> dict[str, float]:
        """Shares that hold at a step (counted from 0)."""
        return dict(self._stages[self._stage_of(step)[0]].mixture.shares)

    def reweighted(self, step: int, shares: Mapping[str, float]) -> Feed:
        """This feed with other shares from `step` on, to the end of the stage.

        Every source is read on where it was left. `step` may not be one that is over.
        """
        number, _ = self._stage_of(step)
        stages = list(self._stages)
        mixture = stages[number].mixture.with_shares(shares)
        stages[number] = dataclasses.replace(stages[number], mixture=mixture)
        used = dict(zip(self.sources, self._used_at(step).tolist(), strict=True))
        return self._again(stages, Origin(step, used))

    def continued(self, state: Mapping[str, Any]) -> Feed:
        """This feed with the shares and the origin that a checkpoint kept (`state`)."""
        saved = [stage["shares"] for stage in state["order"]["stages"]]
        stages = [
            dataclasses.replace(stage, mixture=stage.mixture.with_shares(shares))
            for stage, shares in zip(self._stages, saved, strict=True)
        ]
        return self._again(stages, Origin(state["origin"]["step"], state["origin"]["rows"]))

    def _again(self, stages: Sequence[Stage], origin: Origin) -> Feed:
        return Feed(
            self._packed,
            stages,
            length=self._length,
            batch_rows=self._batch_rows,
            seed=self._seed,
            origin=origin,
        )

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Some rows of the global batch at a step (counted from 0).

        Returns:
            tokens, targets, positions, segment_ids, source_ids (int32) and loss_weights
            (float32), each [rows, length]; segment 0 is padding. Preferences have `reference`
            (float32) too, on the first position of a segment; segments 2n - 1 and 2n of a row are
            the chosen and the rejected answer of its n-th pair.

        Raises:
            IndexError: a step before the first or after the last.
        """
        chosen = self._locate(step, rows)
        shape = (len(chosen), self._length)
        arrays = {name: np.zeros(shape, np.int32) for name in FIELDS}
        arrays["loss_weights"] = np.zeros(shape, np.float32)
        if self.has_preferences:
            arrays["reference"] = np.zeros(shape, np.float32)
        waiting = []
        for row, (source, index) in enumerate(chosen):
            arrays["source_ids"][row] = self._first_label[source]
            self._reading = self.sources[source]
            fields = {name: a[row] for name, a in arrays.items()}
            packed = self._packed[source]
            if self._readers and isinstance(packed, PackedSource):
                waiting.append(self._readers.submit(packed.fill, index, fields))
            else:
                packed.fill(index, fields)
        for filled in waiting:
            filled.result()
        return arrays

    def describe_batch(self, step: int) -> list[str]:
        """Source and documents of each row of the global batch at a step, a line a row.

        Documents are numbered in the order of the source's training text, from 0.
        """
        lines = []
        for source, index in self._locate(step, slice(None)):
            packed = self._packed[source]
            lines.append(f"{packed.name}: {', '.join(map(str, packed.documents(index)))}")
        return lines

    def iterate(
        self,
        start_step: int,
        stop_step: int,
        rows: slice = slice(None),
        *,
        prefetch: int = 2,
        timeout: float | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches start_step..stop_step, made ahead in a thread that ends with the iterator.

        Raises:
            TimeoutError: no batch came for `timeout` seconds; the source that is read is named.
        """
        ready: queue.Queue = queue.Queue(maxsize=prefetch)
        stop = threading.Event()

        def put(item: Any) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for step in range(start_step, stop_step):
                    if not put(self.batch(step, rows)):
                        return
                put(None)
            except BaseException as error:  # carried to the consumer, whatever it is
                put(error)

        thread = threading.Thread(target=work, name="feed", daemon=True)
        thread.start()
        step, stuck = start_step, False
        try:
            while (item := ready.get(timeout=timeout)) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                step += 1
        except queue.Empty:
            stuck = True
            raise TimeoutError(
                f"no batch for step {step} after {timeout:g} seconds: the source "
                f"{self._reading!r} is being read; look at its files, or raise feed.timeout_seconds"
            ) from None
        finally:
            stop.set()
            if not stuck:
                thread.join()

    @property
    def has_preferences(self) -> bool:
        """Whether a source holds preferences."""
        stores = (source.store for source in self._packed if isinstance(source, PackedSource))
        return any(store.kind == PREFERENCES for store in stores)

    def order(self) -> dict[str, Any]:
        """Everything that the order of batches depends on: plain data, equal for equal orders."""
        stages = [
            {"name": stage.name, "steps": stage.steps, "shares": dict(stage.mixture.shares)}
            for stage in self._stages
        ]
        return {
            "seed": self._seed,
            "length": self._length,
            "packing": VERSION,
            "batch_rows": self._batch_rows,
            "stages": stages,
            "sources": {source.name: source.fingerprint for source in self._packed},
        }

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint after `step` steps keeps, so that the order can go on: plain data."""
        rows: dict[str, dict[str, Any]] = {}
        for source, used in zip(self._packed, self._used_at(step).tolist(), strict=True):
            rows[source.name] = {"used": used, "epoch": source.rows}
            if isinstance(source, StreamedSource):
                rows[source.name]["window"] = source.window_at(used)
        origin = {"step": self.origin.step, "rows": dict(self.origin.rows)}
        return {"order": self.order(), "origin": origin, "rows": rows}

    def describe(self) -> dict[str, Any]:
        """The content of mixture.json: shares, sizes of sources, and how often each is read."""
        used = np.diff(self._used, axis=0)
        stages = []
        for number, (stage, (start, end)) in enumerate(zip(self._stages, self._spans, strict=True)):
            epochs = {
                source.name: _epochs(used[number, i], source.rows)
                for i, source in enumerate(self._packed)
            }
            stages.append(
                {
                    "name": stage.name,
                    "mixture": stage.mixture.name,
                    "first_step": start,
                    "steps": end - start,
                    "shares": dict(stage.mixture.shares),
                    "epochs": epochs,
                    "notes": list(stage.mixture.notes),
                }
            )
        return {"stages": stages, "sources": self._describe_sources()}

    def _describe_sources(self) -> dict[str, dict[str, Any]]:
        return {
            source.name: source.describe() | {"epochs": _epochs(self._used[-1, i], source.rows)}
            for i, source in enumerate(self._packed)
        }

    def _locate(self, step: int, rows: slice) -> list[tuple[int, int]]:
        """Source and index in the source of each row of a batch."""
        stage, first = self._stage_of(step)
        located = []
        for row in range(self._batch_rows)[rows]:
            position = (step - first) * self._batch_rows + row
            source, rank = self._interleaves[stage].locate(position)
            located.append((source, int(self._used[stage, source]) + rank))
        return located

    def _used_at(self, step: int) -> np.ndarray:
        """Rows of each source before a step, int64 [sources]."""
        for number, (start, end) in enumerate(self._spans):
            if start <= step < end:
                rows = (step - start) * self._batch_rows
                return self._used[number] + self._interleaves[number].counts(rows)
        return self._used[-1]

    def _row_weights(self, mixture: Mixture) -> list[float]:
        """Shares of target tokens, turned into shares of rows by how full a source's rows are."""
        return [
            mixture.shares.get(source.name, 0.0) / source.targets_per_row for source in self._packed
        ]

    def _seed_of(self, stage: int) -> tuple[int, ...]:
        """Seeds of a stage; one that began under another order gets draws of its own."""
        start, end = self._spans[stage]
        begun = self.origin.step and start == self.origin.step and end > start
        return (self._seed, stage, self.origin.step) if begun else (self._seed, stage)

    def _stage_of(self, step: int) -> tuple[int, int]:
        """The stage that a step belongs to, and its first step in this order."""
        for number, (start, end) in enumerate(self._spans):
            if start <= step < end:
                return number, start
        first, last = self.origin.step, self._spans[-1][1]
        since = f", of which this order begins at {first}" if first else ""
        raise IndexError(f"step {step} is not one of the {last} steps of the run{since}")


def build_feed(
    packed: Mapping[str, Rows],
    stages: Sequence[Stage],
    *,
    length: int,
    batch_rows: int,
    seed: int,
) -> Feed:
    """Mixes the packed sources that a stage gives a share.

    Args:
        packed: by name, what `pack_sources` returned for the same length and seed.
        stages: in order.
        length: target tokens of a row.
        batch_rows: rows of a global batch.
        seed: of the order.

    Raises:
        ValueError: a share of a source that is not there.
    """
    wanted = [
        name
        for name in dict.fromkeys(name for stage in stages for name in stage.mixture.shares)
        if any(stage.mixture.shares.get(name, 0) > 0 for stage in stages)
    ]
    for name in wanted:
        if name not in packed:
            raise ValueError(f"the mixture has a source {name!r} and the data has none")
    rows = [source for name, source in packed.items() if name in wanted]
    return Feed(rows, stages, length=length, batch_rows=batch_rows, seed=seed)


def _epochs(used: int, rows: int | None) -> float | None:
    return None if rows is None else round(float(used / rows), 3)
