"""The feed: the global batch at step n is a pure function of (corpus, mixture, seed, n).

Every source is tokenised once and packed into rows. Rows are mixed by index (interleave.py), so any
batch is asked for directly: nothing is replayed on a restart, and hosts take rows by position.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import queue
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.data.corpus import TRAIN, Corpus
from marco_jax.data.interleave import Interleave
from marco_jax.data.mixtures import Mixture
from marco_jax.data.packing import PackingPlan, plan_rows
from marco_jax.data.store import MANIFEST, TokenStore, write_store
from marco_jax.tokenizer import Tokenizer

FIELDS = ("tokens", "targets", "positions", "segment_ids", "source_ids")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of a run with one mixture."""

    name: str
    mixture: Mixture
    steps: int


class PackedSource:
    """The rows of one source: packed once, in another order every epoch."""

    def __init__(
        self, name: str, store: TokenStore, length: int, seed: int, separator: int
    ) -> None:
        """Plans the rows from the lengths; reads nothing yet."""
        self.name, self.store, self.length = name, store, length
        self._seed, self._separator = (seed, zlib.crc32(name.encode())), separator
        self.plan: PackingPlan = plan_rows(store.lengths, length, self._rng(0))
        self._order = functools.lru_cache(maxsize=2)(self._make_order)

    @property
    def targets_per_row(self) -> float:
        """Mean target tokens of a row; the rest is padding."""
        return self.plan.targets / self.plan.rows

    def fill(self, index: int, out: Mapping[str, np.ndarray]) -> None:
        """Writes the index-th row of the source's endless sequence into arrays of zeros."""
        epoch, place = divmod(index, self.plan.rows)
        row = self._order(epoch)[place]
        start = 0
        pieces = range(self.plan.starts[row], self.plan.starts[row + 1])
        for segment, piece in enumerate(pieces, start=1):
            stream = self._stream(piece)
            size = len(stream) - 1
            part = slice(start, start + size)
            out["tokens"][part], out["targets"][part] = stream[:-1], stream[1:]
            out["positions"][part] = np.arange(size)
            out["segment_ids"][part] = segment
            out["loss_weights"][part] = 1.0
            start += size

    def _stream(self, piece: int) -> np.ndarray:
        """Inputs and targets of a piece: size + 1 entries of [separator] + ids + [separator]."""
        document = int(self.plan.document[piece])
        offset, size = int(self.plan.offset[piece]), int(self.plan.size[piece])
        length = int(self.store.lengths[document])
        ids = self.store.read(document, max(0, offset - 1), min(length, offset + size))
        before = [self._separator] if offset == 0 else []
        after = [self._separator] if offset + size > length else []
        return np.concatenate([before, ids, after]).astype(np.int32)

    def _make_order(self, epoch: int) -> np.ndarray:
        return self._rng(1 + epoch).permutation(self.plan.rows)

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([*self._seed, stream]))


class Feed:
    """Batches by step, with what is known of the mixture behind them."""

    def __init__(
        self,
        sources: Mapping[str, PackedSource],
        stages: Sequence[Stage],
        *,
        length: int,
        batch_rows: int,
        seed: int,
    ) -> None:
        """`sources` are those with a share in some stage; their order gives the source ids."""
        self.sources = tuple(sources)
        self._packed = list(sources.values())
        self._stages = list(stages)
        self._length, self._batch_rows = length, batch_rows
        self._interleaves = [
            Interleave(self._row_weights(stage.mixture), (seed, number))
            for number, stage in enumerate(stages)
        ]
        # Rows of each source that earlier stages have used: a stage goes on where they stopped.
        used = [interleave.counts(rows) for interleave, rows in self._stage_rows()]
        self._used = np.concatenate([[np.zeros(len(sources), np.int64)], np.cumsum(used, axis=0)])

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Rows of the global batch at a step (counted from 0).

        Returns:
            tokens, targets, positions, segment_ids, source_ids (int32) and loss_weights
            (float32), each [rows, length]; segment 0 is padding.

        Raises:
            IndexError: a step before the first or after the last.
        """
        stage, first = self._stage_of(step)
        chosen = range(self._batch_rows)[rows]
        shape = (len(chosen), self._length)
        arrays = {name: np.zeros(shape, np.int32) for name in FIELDS}
        arrays["loss_weights"] = np.zeros(shape, np.float32)
        for place, row in enumerate(chosen):
            position = (step - first) * self._batch_rows + row
            source, rank = self._interleaves[stage].locate(position)
            arrays["source_ids"][place] = source
            index = int(self._used[stage, source]) + rank
            self._packed[source].fill(index, {name: a[place] for name, a in arrays.items()})
        return arrays

    def iterate(
        self, start_step: int, stop_step: int, rows: slice = slice(None), prefetch: int = 2
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches start_step..stop_step, made ahead in a thread that ends with the iterator."""
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
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def describe(self) -> dict[str, Any]:
        """What goes to mixture.json: shares asked for, and what each source holds and is read."""
        used = np.diff(self._used, axis=0)
        stages, first = [], 0
        for number, stage in enumerate(self._stages):
            epochs = {
                source.name: round(float(used[number, i] / source.plan.rows), 3)
                for i, source in enumerate(self._packed)
            }
            stages.append(
                {
                    "name": stage.name,
                    "mixture": stage.mixture.name,
                    "first_step": first,
                    "steps": stage.steps,
                    "shares": dict(stage.mixture.shares),
                    "epochs": epochs,
                    "notes": list(stage.mixture.notes),
                }
            )
            first += stage.steps
        sources = {
            source.name: {
                "documents": len(source.store.lengths),
                "tokens": source.plan.targets,
                "rows": source.plan.rows,
                "padding": round(1 - source.targets_per_row / self._length, 4),
                "epochs": round(float(self._used[-1, i] / source.plan.rows), 3),
            }
            for i, source in enumerate(self._packed)
        }
        return {"stages": stages, "sources": sources}

    def _row_weights(self, mixture: Mixture) -> list[float]:
        """Shares of target tokens, turned into shares of rows by how full a source's rows are."""
        return [
            mixture.shares.get(source.name, 0.0) / source.targets_per_row for source in self._packed
        ]

    def _stage_rows(self) -> Iterator[tuple[Interleave, int]]:
        for interleave, stage in zip(self._interleaves, self._stages, strict=True):
            yield interleave, stage.steps * self._batch_rows

    def _stage_of(self, step: int) -> tuple[int, int]:
        """The stage that a step belongs to, and its first step."""
        first = 0
        for number, stage in enumerate(self._stages):
            if first <= step < first + stage.steps:
                return number, first
            first += stage.steps
        raise IndexError(f"step {step} is not one of the {first} steps of the run")


def build_feed(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    stages: Sequence[Stage],
    length: int,
    batch_rows: int,
    seed: int,
    cache_dir: str | pathlib.Path,
) -> Feed:
    """Tokenises the sources that the stages use (once: `cache_dir` keeps them) and packs them.

    Raises:
        ValueError: a stage gives a share to a source that the corpus does not have.
    """
    wanted = {name for stage in stages for name, share in stage.mixture.shares.items() if share}
    known = corpus.sources()
    if wanted - set(known):
        name = sorted(wanted - set(known))[0]
        raise ValueError(f"the mixture has a source {name!r} and the data has none: {known}")
    names = [name for name in known if name in wanted]
    stores = _stores(corpus, tokenizer, names, pathlib.Path(cache_dir))
    sources = {
        name: PackedSource(name, store, length, seed, tokenizer.eos_id)
        for name, store in stores.items()
    }
    return Feed(sources, stages, length=length, batch_rows=batch_rows, seed=seed)


def _stores(
    corpus: Corpus, tokenizer: Tokenizer, names: Sequence[str], cache_dir: pathlib.Path
) -> dict[str, TokenStore]:
    cache = cache_dir / f"{corpus.fingerprint[:12]}-{tokenizer.fingerprint[:12]}"
    missing = [name for name in names if not (cache / name / MANIFEST).exists()]
    if missing:
        # TensorFlow is loaded only where something has yet to be tokenised. Its start-up notes (no
        # GPU, oneDNN) are no news here: it reads text.
        with _quiet_stderr():
            from marco_jax.data.tasks import register_tasks

            tasks = register_tasks(corpus, tokenizer)
        for name in missing:
            dataset = tasks[name].get_dataset(sequence_length=None, split=TRAIN, shuffle=False)
            about = {
                "source": name,
                "corpus": corpus.fingerprint,
                "tokenizer": tokenizer.fingerprint,
            }
            documents = (example["tokens"] for example in dataset.as_numpy_iterator())
            write_store(cache / name, documents, about)
    return {name: TokenStore(cache / name) for name in names}


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what native libraries write to stderr, unless the block fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
