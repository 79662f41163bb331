"""What a run is made of: tokenizer, data, model, mesh, optimizer, from one config."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from marco_jax.data.corpus import Corpus
from marco_jax.data.feed import Feed, Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Mixture, apply_override, get_mixture
from marco_jax.decoding.engine import Engine
from marco_jax.evaluation.evaluator import Evaluator
from marco_jax.languages import LANGUAGES
from marco_jax.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from marco_jax.training.assemble import (
    check_run,
    create_sharding,
    create_trainer,
    global_rows,
)
from marco_jax.training.checkpoint import TOKENIZER, load_model, write_json
from marco_jax.training.config import ConfigError, model_config, plan_stages
from marco_jax.training.processes import first_process_first, say
from marco_jax.training.step import Batch, TrainState

# A language shows a new tokenizer this much text: enough for its pieces, and minutes for all.
TOKENIZER_CHARACTERS = 1_000_000


class Run:
    """The parts of a run; building it writes the tokenizer and mixture.json to the workdir."""

    def __init__(self, config: ConfigDict, workdir: pathlib.Path) -> None:
        """Builds everything but the state.

        Raises:
            ValueError: config fields that do not fit together, or data that cannot be read.
        """
        if config.objective != "cpt":
            raise ConfigError(f"objective is {config.objective!r}: only 'cpt' is supported")
        self.config, self.workdir = config, workdir
        self.sharding = create_sharding(config)
        self.corpus = load_corpus(config.data, seed=config.seed)
        source = load_model(config.init_from, self.sharding) if config.init_from else None
        with first_process_first("tokenizer"):
            self.tokenizer = _tokenizer(config, self.corpus, workdir, source and source.tokenizer)
        self.model = source.config if source else model_config(config, self.tokenizer.vocab_size)
        self._initial_params = source and source.params
        check_run(config, self.model, self.sharding)
        self.batch_rows = global_rows(config, self.sharding)
        self.stages = plan_stages(config)
        ends = np.cumsum([stage.steps for stage in self.stages])
        self.stage_ends = set(ends.tolist())
        with first_process_first("data"):
            self.feed = self._feed()
        sources = len(self.feed.sources)
        self.trainer = create_trainer(
            config, self.model, self.sharding, sources, self.tokenizer.vocab_size
        )

    def initial_state(self) -> TrainState:
        """The state before step 1: from `config.init_from`, or random from the seed."""
        params, self._initial_params = self._initial_params, None
        return self.trainer.init(self.config.seed, params)

    def stage_at(self, step: int) -> str:
        """The name of the stage that step index `step` (counted from 0) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage.name
            step -= stage.steps
        return self.stages[-1].name

    def batches(self, first: int) -> Iterator[Batch]:
        """Global batches on the mesh from step index `first` on; each process reads its rows."""
        shape = (self.batch_rows, self.config.batch.length)
        layout = self.trainer.batch_sharding
        rows = _local_rows(layout, shape)
        batches = self.feed.iterate(first, self.config.steps, rows)
        try:
            for arrays in batches:
                yield Batch(
                    *(
                        jax.make_array_from_callback(
                            shape, layout, lambda index, a=arrays[name]: a[_within(index, rows)]
                        )
                        for name in Batch._fields
                    )
                )
        finally:
            batches.close()

    def data_state(self, step: int) -> dict[str, Any]:
        """What a restart after `step` finished steps must know of the data: a small JSON value."""
        return {}

    def resume(self, data: dict[str, Any], step: int) -> None:
        """Takes up the `data_state` of a checkpoint, before the first batch is asked for."""

    def describe_batch(self, step: int) -> list[str]:
        """Names of the sources in the global batch at step index `step`."""
        batch = self.feed.batch(step)
        found = np.unique(batch["source_ids"][batch["segment_ids"] > 0])
        return [self.feed.sources[source] for source in found]

    def engine(self) -> Engine:
        """An engine on the training mesh."""
        return Engine(
            self.model,
            self.tokenizer,
            sharding=self.sharding,
            dtype=jnp.dtype(self.config.dtype),
            max_length=self.config.evaluation.max_length,
            tokens_per_batch=self.config.evaluation.tokens_per_batch,
        )

    def evaluator(self, engine: Engine, tasks: str) -> Evaluator:
        """An evaluator of comma-separated tasks, as `config.evaluation` describes them."""
        fields = self.config.evaluation
        return Evaluator(
            engine,
            self.corpus,
            tuple(name for name in tasks.split(",") if name),
            data_dir=fields.data_dir,
            languages=tuple(name for name in fields.languages.split(",") if name) or None,
            shots=fields.shots,
            examples=fields.examples.to_dict(),
        )

    def _feed(self) -> Feed:
        config = self.config
        mixtures = [self._mixture(stage.mixture) for stage in self.stages]
        feed = build_feed(
            self.corpus,
            self.tokenizer,
            stages=[
                Stage(stage.name, mixture, stage.steps)
                for stage, mixture in zip(self.stages, mixtures, strict=True)
            ],
            length=config.batch.length,
            batch_rows=self.batch_rows,
            seed=config.seed,
            cache_dir=config.data_cache or self.workdir / "data",
        )
        if jax.process_index() == 0:
            write_json(self.workdir / "mixture.json", feed.describe())
        return feed

    def _mixture(self, name: str) -> Mixture:
        mixture = get_mixture(name, self.corpus.sources())
        for note in mixture.notes:
            say(f"mixture {name}: {note}")
        if not self.config.mixture.override:
            return mixture
        return mixture.with_shares(apply_override(mixture.shares, self.config.mixture.override))


def _tokenizer(
    config: ConfigDict, corpus: Corpus, workdir: pathlib.Path, given: Tokenizer | None
) -> Tokenizer:
    """The workdir's own tokenizer; else a given one, or one trained on the corpus, saved there."""
    directory = workdir / TOKENIZER
    if directory.is_dir():
        return load_tokenizer(directory)
    if config.tokenizer.path:
        given = load_tokenizer(config.tokenizer.path)
    if given is None:
        size = config.tokenizer.vocab_size
        say(f"training a SentencePiece tokenizer of {size} pieces on the corpus")
        # Monolingual text alone: translations repeat it, and the words of their templates.
        texts = (text for language in LANGUAGES for text in _sample(corpus, language))
        return train_sentencepiece(texts, size, directory)
    given.save(directory)
    return given


def _sample(corpus: Corpus, language: str) -> Iterator[str]:
    """Training texts of a language, as many as its tokenizer needs."""
    characters = 0
    for text in corpus.texts(language, "train"):
        if characters >= TOKENIZER_CHARACTERS:
            return
        yield text
        characters += len(text)


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
