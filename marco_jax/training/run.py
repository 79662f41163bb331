"""What a run is made of: tokenizer, data, model, mesh, optimizer, from one config."""

from __future__ import annotations

import functools
import logging
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from marco_jax.data.adaptive import Adaptive, AdaptiveOptions
from marco_jax.data.feed import Feed, Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Mixture, Within, apply_override, get_mixture, mixture_sources
from marco_jax.data.order import refuse_change
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.store import TokenStore
from marco_jax.data.streamed import StreamedSource
from marco_jax.decoding.engine import Engine
from marco_jax.evaluation.builtin_tasks import named_task
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.evaluator import Evaluator
from marco_jax.files import check_space, write_json
from marco_jax.languages import names_in
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import abstract_params
from marco_jax.runtime.processes import first_process_first
from marco_jax.runtime.progress import Progress
from marco_jax.training.assemble import (
    check_run,
    create_sharding,
    create_trainer,
    global_rows,
    preference_options,
)
from marco_jax.training.checks import (
    check_mixtures,
    checkpoint_bytes,
)
from marco_jax.training.config import (
    StagePlan,
    model_config,
    plan_stages,
    resolve_steps,
)
from marco_jax.training.mixture_table import mixture_table
from marco_jax.training.objectives import check_sources
from marco_jax.training.preferences import PreferenceOptions
from marco_jax.training.references import reference_path, reference_scores
from marco_jax.training.run_tokenizer import find_tokenizer
from marco_jax.training.step import Batch, TrainState
from marco_jax.training.workdir import identity
from marco_jax.weights.huggingface import check_exportable
from marco_jax.weights.models import adapter_meta, find_model, fingerprint, load_weights

_log = logging.getLogger(__name__)


class Run:
    """The parts of a run; building it writes the tokenizer and mixture.json to the workdir."""

    def __init__(self, config: ConfigDict, workdir: pathlib.Path) -> None:
        """Builds everything but the state.

        Raises:
            ValueError: config fields that do not fit together, or data that cannot be read.
        """
        self.config, self.workdir = config, workdir
        self.sharding = create_sharding(config)
        # What can be refused at once is, before any data is read.
        self.batch_rows = global_rows(config, self.sharding)
        resolve_steps(config, self.batch_rows * config.batch.length)
        self.stages = plan_stages(config)
        with Progress(f"reading {config.data}"):
            self.corpus = load_corpus(config.data, seed=config.seed)
        check_mixtures(config, self.stages, self.corpus.infos())
        self.source = source = find_model(config.init_from) if config.init_from else None
        with first_process_first("tokenizer"):
            self.tokenizer = find_tokenizer(
                config, self.corpus, workdir, source and source.tokenizer
            )
        self.model = source.config if source else model_config(config, self.tokenizer.vocab_size)
        check_run(config, self.model, self.sharding)
        check_sources(config.objective, self.corpus.infos(), self.stages)
        # A run whose end could not be exported does not begin.
        check_exportable(self.model, abstract_params(self.model), self.tokenizer)
        check_space(workdir, checkpoint_bytes(config, self.model))
        # Before sources are tokenised, which may take hours: a task without data is refused here.
        self.evaluators = self._evaluators()
        ends = np.cumsum([stage.steps for stage in self.stages])
        self.stage_ends = set(ends.tolist())
        options = AdaptiveOptions(**config.mixture.adaptive.to_dict())
        self.adaptive = Adaptive(options) if options.every else None
        self.feed = self.configured = self._feed()
        sources = len(self.feed.labels)
        self.trainer = create_trainer(
            config, self.model, self.sharding, sources, self.tokenizer.vocab_size
        )

    def initial_state(self) -> TrainState:
        """The state before step 1: from `config.init_from`, or random from the seed."""
        trainer = self.trainer
        if self.source is None:
            return trainer.init(self.config.seed)
        # Master parameters are float32, whatever the type of published weights; frozen ones are
        # what a step takes.
        dtype = jnp.float32 if trainer.options.lora is None else trainer.frozen_dtype
        params = load_weights(self.source, self.sharding, dtype)
        # The loaded arrays become the state's own: there are never two copies of them.
        return trainer.init(self.config.seed, params, donate=True)

    def frozen(self) -> Params | None:
        """What a state holds as `frozen`, for one that comes from a checkpoint."""
        if not self.trainer.options.is_frozen:
            return None
        params = load_weights(self.source, self.sharding, self.trainer.frozen_dtype)
        return self.trainer.freeze(params, donate=True)

    def identity(self) -> dict[str, Any]:
        """What every run of the workdir has in common: a part of its checkpoints."""
        here = identity(self.config, self.tokenizer.fingerprint)
        lora = self.trainer.options.lora
        return here | (adapter_meta(lora, self.source) if lora is not None else {})

    def stage_at(self, step: int) -> str:
        """The name of the stage that step index `step` (counted from 0) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage.name
            step -= stage.steps
        return self.stages[-1].name

    def batches(self, first: int, stop: int) -> Iterator[Batch]:
        """Global batches on the mesh, step indices first..stop; each process reads its rows."""
        shape = (self.batch_rows, self.config.batch.length)
        layout = self.trainer.batch_sharding
        rows = _local_rows(layout, shape)
        batches = self.feed.iterate(
            first,
            stop,
            rows,
            prefetch=self.config.feed.prefetch,
            timeout=self.config.feed.timeout_seconds or None,
        )
        try:
            for arrays in batches:
                yield Batch(
                    **{
                        name: jax.make_array_from_callback(
                            shape, layout, lambda index, a=array: a[_within(index, rows)]
                        )
                        for name, array in arrays.items()
                    }
                )
        finally:
            batches.close()

    def engine(self) -> Engine:
        """An engine on the training mesh."""
        return Engine(
            self.model,
            self.tokenizer,
            sharding=self.sharding,
            dtype=jnp.dtype(self.config.dtype),
            max_length=self.config.evaluation.max_length,
            tokens_per_batch=self.config.evaluation.tokens_per_batch,
            end_ids=self._chat().end_ids if self._chat() else (),
        )

    def _chat(self) -> Chat | None:
        """How the model talks, where it is asked in its chat template."""
        return Chat.of(self.tokenizer) if self.config.evaluation.chat else None

    def _evaluators(self) -> tuple[Evaluator, Evaluator] | None:
        """Of all tasks, and of those that run often; None where there are no tasks."""
        fields = self.config.evaluation
        if not fields.tasks:
            return None
        engine = self.engine()
        with Progress("preparing the evaluation"):
            whole = self._evaluator(engine, names_in(fields.tasks))
            # A task that was left out is not tried, and logged, a second time.
            left_out = {named_task(name)[0] for name in names_in(fields.tasks)} - {*whole.tasks}
            often = [n for n in names_in(fields.every_tasks) if named_task(n)[0] not in left_out]
            frequent = self._evaluator(engine, often)
        return (whole, frequent) if whole.tasks else None

    def _evaluator(self, engine: Engine, tasks: Sequence[str]) -> Evaluator:
        """An evaluator of some tasks, as `config.evaluation` describes them."""
        fields = self.config.evaluation
        return Evaluator(
            engine,
            self.corpus,
            tasks,
            data_dir=fields.data_dir,
            languages=tuple(name for name in fields.languages.split(",") if name) or None,
            shots=fields.shots,
            examples=fields.examples.to_dict(),
            chat=self._chat(),
            max_new_tokens=fields.max_new_tokens or None,
        )

    def adapt(self, step: int) -> dict[str, float]:
        """Changes the weights after `step` steps where they are to change; gives the new ones."""
        if not self.adaptive or not self.adaptive.due(step):
            return {}
        shares = self.feed.shares(step)
        new = self.adaptive.change(step, self.configured.shares(step), shares)
        if new != shares:
            self.feed = self.feed.reweighted(step, new)
        return new

    def next_change(self, step: int) -> int:
        """The next step after `step` at which weights may change: the last where they never do."""
        if not self.adaptive:
            return self.config.steps
        every = self.adaptive.options.every
        return min((step // every + 1) * every, *(end for end in self.stage_ends if end > step))

    def data_state(self, step: int) -> dict[str, Any]:
        """What a checkpoint after `step` steps keeps of the data's order."""
        state = self.feed.state(step)
        if self.adaptive:
            state["adaptive"] = self.adaptive.state() | {"configured": self.configured.order()}
        return state

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Goes on with the order of a checkpoint after `step` steps, as its `data_state` has it.

        Raises:
            OrderChanged: it is another one now, and config.mixture.accept_change is not set.
        """
        if not state:
            _log.info(
                "the checkpoint does not say in which order the data was read: taken as it is now"
            )
            return
        adapted = state.get("adaptive") if self.adaptive else None
        if adapted:
            self.adaptive.restore(adapted)
            # Weights have moved since; what counts is whether they set out from the same ones.
            moved, state = state, {**state, "order": adapted["configured"]}
        feed, changes = self.configured.resumed(state, step)
        if changes and not self.config.mixture.accept_change:
            refuse_change(changes)
        for line in changes:
            _log.info(f"the data's order changes at step {step}: {line}")
        self.feed = feed.continued(moved) if adapted and not changes else feed

    def describe_batch(self, step: int) -> list[str]:
        """Source and documents of each row of the global batch at a step (counted from 0)."""
        return self.feed.describe_batch(step)

    def _feed(self) -> Feed:
        config, corpus = self.config, self.corpus
        infos = corpus.infos()
        wanted = {name for stage in self.stages for name in mixture_sources(stage.mixture, infos)}
        stores = prepare_stores(
            corpus,
            self.tokenizer,
            [info.name for info in infos if info.name in wanted and not info.streamed],
            config.data_cache or self.workdir / "data",
            part=(jax.process_index(), jax.process_count()),
        )
        sizes = {name: store.targets for name, store in stores.items()}
        sources = {
            info.name: self._stream(info.name) if info.streamed else stores[info.name]
            for info in infos
            if info.name in wanted
        }
        stages, read = [], dict.fromkeys(sources, 0.0)
        for stage in self.stages:
            budget = float(stage.steps * self.batch_rows * config.batch.length)
            mixture = self._mixture(stage, sizes, budget, read)
            stages.append(Stage(stage.name, mixture, stage.steps))
            for name, share in mixture.shares.items():
                read[name] += share * budget
        preference = preference_options(config)
        return build_feed(
            sources,
            stages,
            length=config.batch.length,
            batch_rows=self.batch_rows,
            seed=config.seed,
            separator=self.tokenizer.eos_id,
            references=self._references(stores, preference),
            pairs_per_row=preference.pairs_per_row if preference else 1,
        )

    def _references(
        self, stores: Mapping[str, TokenStore], options: PreferenceOptions | None
    ) -> dict[str, np.ndarray]:
        """What preferences are compared with, where that is known before training."""
        if options is None or not options.has_reference or options.is_live:
            return {}
        length = self.config.batch.length
        # The base of adapters is what they set out from, rounding included.
        dtype = self.config.lora.base_dtype if self.config.lora.rank else self.config.dtype
        model = f"{fingerprint(self.source)[:16]}-{dtype}-{self.config.dtype}"

        @functools.cache
        def load() -> tuple[Engine, Params]:
            _log.info("scoring the pairs with the model that the run starts from")
            engine = Engine(
                self.model,
                self.tokenizer,
                sharding=self.sharding,
                dtype=jnp.dtype(self.config.dtype),
                max_length=length,
                tokens_per_batch=self.config.evaluation.tokens_per_batch,
            )
            return engine, load_weights(self.source, self.sharding, jnp.dtype(dtype))

        return {
            name: reference_scores(store, reference_path(store, model, length), length, load)
            for name, store in stores.items()
        }

    def _stream(self, name: str) -> StreamedSource:
        _log.info(
            f"{name} is streamed: a restart reads the same rows, after going through the records "
            "before them again; other sources start at any step at once"
        )
        corpus = self.corpus
        return StreamedSource(
            name,
            lambda: (document.text for document in corpus.documents(name, "train")),
            self.tokenizer,
            f"{corpus.source_fingerprint(name)}-{self.tokenizer.fingerprint}",
            self.config.batch.length,
            self.config.seed,
        )

    def _mixture(
        self, stage: StagePlan, sizes: Mapping[str, int], budget: float, read: Mapping[str, float]
    ) -> Mixture:
        fields, infos = self.config.mixture, self.corpus.infos()
        within = Within(fields.within, fields.temperature, fields.max_epochs)
        mixture = get_mixture(stage.mixture, infos, within, sizes, budget, read)
        for note in mixture.notes:
            _log.info(f"mixture {stage.mixture}: {note}")
        everywhere = {
            name for other in self.stages for name in mixture_sources(other.mixture, infos)
        }
        shares = apply_override(mixture.shares, fields.override, infos, stage.name, everywhere)
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

    def record_mixture(self) -> None:
        """Writes mixture.json, and says what each source holds and how often it is read."""
        described = self.feed.describe()
        if jax.process_index() == 0:
            write_json(self.workdir / "mixture.json", described)
        lines, warnings = mixture_table(described, self.config.mixture.max_epochs)
        for line in lines:
            _log.info(line)
        for line in warnings:
            _log.warning(line)


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
