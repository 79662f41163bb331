"""What a run writes besides metrics and checkpoints: evaluations, exports, profiler traces."""

from __future__ import annotations

import logging
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from marco_jax.data.corpus import Corpus
from marco_jax.decoding.engine import Engine
from marco_jax.evaluation.benchmark_tasks import configured_shots
from marco_jax.evaluation.builtin_tasks import named_task
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.evaluator import Evaluation, Evaluator
from marco_jax.evaluation.outcomes import outcomes_path, write_outcomes
from marco_jax.evaluation.results import ALL, HIGH, LOW, Result, write_results
from marco_jax.evaluation.samples import Samples, sample_prompts
from marco_jax.files import is_remote, upload_tree, write_json, write_text
from marco_jax.languages import names_in
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.op_times import read_times
from marco_jax.runtime.processes import agree
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.chat_templates import parse_variables
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.training.clock import CHECKPOINT, EVALUATION
from marco_jax.training.config import ConfigError, profiled_steps
from marco_jax.training.faults import Preempted
from marco_jax.training.hooks import Event
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.state import TrainState
from marco_jax.training.step import Trainer
from marco_jax.weights.huggingface import save_huggingface
from marco_jax.weights.model_card import Terms, model_card, stated_terms

_log = logging.getLogger(__name__)

HUGGING_FACE = "huggingface"
_DTYPES = ("", "float32", "bfloat16", "float16")


class Evaluators(NamedTuple):
    """An evaluator of all tasks, one of those that run often, and what writes samples, if any."""

    whole: Evaluator
    frequent: Evaluator
    samples: Samples | None


def create_evaluators(
    config: ConfigDict, corpus: Corpus, tokenizer: Tokenizer, model: Qwen2Config, mesh: Sharding
) -> Evaluators | None:
    """The evaluators of a run; None where there are no tasks.

    All compute on the training mesh. With `mixture.modules` there are none yet: the held-out texts
    of registered tasks are known after they have been tokenised (`update_evaluators`).

    Raises:
        ValueError: a task that cannot be evaluated, as long as its name does not end in "?".
    """
    if config.mixture.modules:
        return None
    return _create_evaluators(config, corpus, tokenizer, model, mesh)


def update_evaluators(
    evaluators: Evaluators | None,
    config: ConfigDict,
    corpus: Corpus,
    tokenizer: Tokenizer,
    model: Qwen2Config,
    mesh: Sharding,
) -> Evaluators | None:
    """The evaluators after the sources have been tokenised: without texts that are trained on."""
    if config.mixture.modules:
        return _create_evaluators(config, corpus, tokenizer, model, mesh)
    if evaluators is not None:
        evaluators.whole.refresh()
        evaluators.frequent.refresh()
    return evaluators


def _create_evaluators(
    config: ConfigDict, corpus: Corpus, tokenizer: Tokenizer, model: Qwen2Config, mesh: Sharding
) -> Evaluators | None:
    fields = config.evaluation
    if not fields.tasks:
        return None
    given = parse_variables(config.chat.template_kwargs, "chat.template_kwargs")
    chat = Chat.of(tokenizer, given) if fields.chat else None
    engine = Engine(
        model,
        tokenizer,
        sharding=mesh,
        dtype=jnp.dtype(config.dtype),
        max_length=fields.max_length,
        tokens_per_batch=fields.tokens_per_batch,
        end_ids=chat.end_ids if chat else (),
        drafts=fields.drafts,
    )

    def evaluator(tasks: Sequence[str]) -> Evaluator:
        return Evaluator(
            engine,
            corpus,
            tasks,
            data_dir=fields.data_dir,
            languages=names_in(fields.languages) or None,
            shots=fields.shots,
            benchmark_shots=configured_shots(fields.benchmark_shots),
            examples=fields.examples.to_dict(),
            chat=chat,
            max_new_tokens=fields.max_new_tokens or None,
        )

    with Progress("preparing the evaluation"):
        whole = evaluator(names_in(fields.tasks))
        # A task that was left out is not tried, and logged, a second time.
        left_out = {named_task(name)[0] for name in names_in(fields.tasks)} - {*whole.tasks}
        often = [n for n in names_in(fields.every_tasks) if named_task(n)[0] not in left_out]
        frequent = evaluator(often)
        asked = fields.samples
        languages = [info.language for info in corpus.infos()]
        prompts = sample_prompts(asked.file, asked.prompts, languages)
        samples = Samples(engine, prompts, asked.tokens, chat) if prompts else None
    return Evaluators(whole, frequent, samples) if whole.tasks else None


class EvaluationHook:
    """Scores the training parameters on the training mesh, and writes eval/<step>.json.

    Where there are samples, what the parameters write goes to samples/<step>.json.
    """

    def __init__(
        self,
        evaluators: Evaluators,
        workdir: pathlib.Path,
        writer: MetricsWriter,
        every: int,
        *,
        at_start: bool,
        max_seconds: float = 0.0,
        model_params: Callable[[TrainState], Params] = lambda state: state.params,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Runs all tasks at stage ends (and before step 1 if `at_start`), some more often.

        Args:
            evaluators: of all tasks, and of those that run every `every` steps as well; samples
                are written at both.
            workdir: where eval/<step>.json and samples/<step>.json go.
            writer: passes the metrics on to trackers; evaluations are booked on its clock.
            every: 0 for stage ends alone.
            at_start: whether the parameters that the run starts from are evaluated.
            max_seconds: of an evaluation, as in `Evaluator.run`, without samples; 0: no limit.
            model_params: of a state, those of the model.
            between: called between the batches of an evaluation; may raise Preempted.
        """
        self.evaluators = evaluators
        self.workdir, self.writer = workdir, writer
        self.every, self.at_start, self.model_params = every, at_start, model_params
        self.max_seconds, self.between = max_seconds, between
        # The metrics of the step that was evaluated last, by name, with its `step`.
        self.last: dict[str, Any] = {}
        # Whether a signal ended the last evaluation.
        self.cut = False
        # The first means of the last evaluation, for the progress line.
        self.headline = ""

    def __call__(self, event: Event) -> None:
        """Evaluates when due, and after a restart what is missing of its step."""
        due = self.at_start if event.step == 0 else event.due(self.every)
        if event.stopping or not due:
            return
        out = self.workdir / "eval" / f"{event.step}.json"
        texts_out = self.workdir / "samples" / f"{event.step}.json"
        samples = None if self._is_there(event, texts_out) else self.evaluators.samples
        evaluated = self._is_there(event, out)
        if evaluated and samples is None:
            return
        whole = event.boundary or event.step == 0
        evaluator = self.evaluators.whole if whole else self.evaluators.frequent
        self.writer.flush()
        start, evaluation, texts = time.perf_counter(), None, None
        try:
            with self.writer.clock.part(EVALUATION):
                params = self.model_params(event.state)
                if not evaluated:
                    evaluation = evaluator.run(
                        params, max_seconds=self.max_seconds, between=self.between
                    )
                if samples is not None:
                    texts = samples.generate(params, event.step, self.between)
        except Preempted:
            # The results of a finished evaluation are kept.
            left = "samples" if evaluated or evaluation else "evaluation"
            _log.info(f"SIGTERM: the {left} of step {event.step}: left to the restart")
            self.cut = True
        elapsed = time.perf_counter() - start
        if evaluation is not None:
            if jax.process_index() == 0:
                write_outcomes(outcomes_path(out), evaluation.outcomes, evaluator.shots)
                # Last: a restart repeats an evaluation without results.
                write_results(out, evaluation.results)
            self._report(event, evaluation, elapsed)
        if texts is not None and jax.process_index() == 0:
            write_json(texts_out, texts)

    def _is_there(self, event: Event, path: pathlib.Path) -> bool:
        """Whether a restart finds a file of its step, which is then not written again."""
        if event.metrics is not None or event.step == 0:
            return False
        # All processes follow what one of them sees: a file system may show it at different times.
        return bool(agree("there" if path.exists() else ""))

    def _report(self, event: Event, evaluation: Evaluation, elapsed: float) -> None:
        """Logs results, and gives them to the trackers."""
        if evaluation.left_out:
            _log.warning(evaluation.left_out)
        metrics = {
            f"eval/{r.task}/{r.metric}/{r.language}" + (f"/{r.part}" if r.part else ""): r.value
            for r in evaluation.results
        }
        self.last = {"step": event.step, **metrics}
        self.writer.log(event.step, metrics)
        _log.info(f"evaluation at step {event.step} ({event.stage}), {elapsed:.0f} s")
        for line in _means(evaluation.results):
            _log.info(line)
        self.headline = _headline(evaluation.results, event.step) or self.headline


def _means(results: Sequence[Result]) -> Iterator[str]:
    """A line a task and metric: its means over all, high- and low-resource languages."""
    rows: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.language in (ALL, HIGH, LOW):
            value = f"{result.language} {result.value:7.3f} ± {result.stderr:.3f}"
            rows.setdefault((result.task, result.metric), []).append(value)
    for (task, metric), metrics in rows.items():
        name = task if task == metric else f"{task} {metric}"
        yield f"  {name:<32}" + "   ".join(metrics)


def _headline(results: Sequence[Result], step: int) -> str:
    """The means of the first task and metric over all and low-resource languages; or ""."""
    first = next((r for r in results if r.language == ALL), None)
    if first is None:
        return ""
    what = (first.task, first.metric, first.part)
    low = next(
        (r for r in results if r.language == LOW and (r.task, r.metric, r.part) == what), None
    )
    shown = f" ({LOW} {low.value:.3f})" if low else ""
    return f"{first.task} {first.value:.3f}{shown} at step {step}"


class ProfileHook:
    """A jax.profiler trace of some steps, under the workdir's profile/ (TensorBoard reads it).

    The first process also writes what its devices spent their time on, as profile.txt and
    profile.json in the workdir.
    """

    def __init__(self, workdir: pathlib.Path, steps: str) -> None:
        """`steps` is "FIRST:LAST", counted from 1; empty: no trace.

        Raises:
            ValueError: anything else.
        """
        self.workdir, self.directory = workdir, workdir / "profile"
        # The profiler writes local files alone; those for an object store are uploaded.
        self._local = tempfile.TemporaryDirectory() if is_remote(workdir) else None
        self.tracing = False
        self.first, self.last = profiled_steps(steps) or (-1, -1)

    def __call__(self, event: Event) -> None:
        """Starts before the first of its steps, and stops when the last is done."""
        if event.step == self.first - 1:
            jax.block_until_ready(event.state)
            jax.profiler.start_trace(self._local.name if self._local else str(self.directory))
            self.tracing = True
        elif self.tracing and (event.step >= self.last or event.stopping):
            jax.block_until_ready(event.state)
            jax.profiler.stop_trace()
            self.tracing = False
            if self._local:
                upload_tree(pathlib.Path(self._local.name), self.directory)
            _log.info(f"trace of steps {self.first} to {event.step}: {self.directory}")
            if jax.process_index() == 0:
                self._write_times(event.step)

    def _write_times(self, last: int) -> None:
        """Sums up the trace; a trace that cannot be read does not end the run."""
        try:
            times = read_times(pathlib.Path(self._local.name) if self._local else self.directory)
        except (OSError, RuntimeError, ValueError) as error:
            _log.warning(f"the trace in {self.directory} could not be summed up: {error}")
            return
        if times is None:
            _log.warning(f"the trace in {self.directory} has no operations of a device")
            return
        steps = {"first_step": self.first, "last_step": last}
        write_json(self.workdir / "profile.json", {**steps, **times.to_json()})
        lines = [f"steps {self.first} to {last}", *times.lines()]
        write_text(self.workdir / "profile.txt", "\n".join([*lines, ""]))
        for line in lines:
            _log.info(line)


class ExportHook:
    """Writes the sharded parameters as huggingface/<step>, one tensor at a time."""

    def __init__(
        self,
        config: ConfigDict,
        trainer: Trainer,
        tokenizer: Tokenizer,
        workdir: pathlib.Path,
        writer: MetricsWriter,
    ) -> None:
        """Reads `config.export_every`, `export_dtype` and `card`.

        Raises:
            ConfigError: a dtype that weights are not published in.
        """
        if config.export_dtype not in _DTYPES:
            raise ConfigError(
                f"export_dtype is {config.export_dtype!r}: choose one of {', '.join(_DTYPES[1:])}"
            )
        self.every, self.dtype = config.export_every, config.export_dtype
        self.trainer, self.tokenizer = trainer, tokenizer
        self.workdir, self.writer = workdir, writer
        self.terms = Terms.from_fields(config.card)
        if config.init_from:
            self.terms = self.terms.or_else(stated_terms(config.init_from))

    def __call__(self, event: Event) -> None:
        """Exports when due."""
        if not self.every or event.metrics is None or event.stopping or not event.due(self.every):
            return
        out = self.workdir / HUGGING_FACE / str(event.step)
        self.writer.flush()
        name = f"{self.workdir.resolve().name}, step {event.step:,}"
        model = self.trainer.config
        with self.writer.clock.part(CHECKPOINT):
            save_huggingface(
                out,
                model,
                self.trainer.model_params(event.state),
                self.tokenizer,
                # By name: numpy knows bfloat16 once JAX has been imported.
                np.dtype(self.dtype) if self.dtype else None,
                files={"README.md": model_card(name, model, self.terms, self.workdir, event.step)},
                overwrite=True,
            )
        _log.info(f"exported step {event.step}: {out}")
