"""Evaluates tasks: encodes requests once, then runs the parameters of a model or training run."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from marco_jax.data.corpus import Corpus
from marco_jax.data.task_info import REGISTERED
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, ScoreRequest
from marco_jax.evaluation import few_shot
from marco_jax.evaluation.benchmark_tasks import BenchmarkTask, is_benchmark
from marco_jax.evaluation.benchmarks.prompts import check_at_least
from marco_jax.evaluation.builtin_tasks import EVERY_TASK, Task, get_task, named_task
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.generation_suites import GenerationSuite, Judge
from marco_jax.evaluation.outcomes import Outcomes, SuiteKey
from marco_jax.evaluation.registered_suites import RegisteredSuite
from marco_jax.evaluation.result_rows import AnyTask, result_rows
from marco_jax.evaluation.results import Result
from marco_jax.evaluation.rounds import Round, SavedRounds, blocks, one_round, shares
from marco_jax.evaluation.suites import ChoiceSuite, RollingSuite, Suite
from marco_jax.languages import LANGUAGES, get_language
from marco_jax.runtime.processes import agree
from marco_jax.runtime.progress import Progress, duration

_log = logging.getLogger(__name__)

SOURCE_LANGUAGE = "en"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation.

    Attributes:
        results: one row per task, language and metric; averages follow the languages.
        seconds: wall-clock time by task. Tasks of one kind share engine calls, whose time is
            divided in proportion to their tokens.
        outcomes: of the items, by task and language.
        left_out: what a time limit left out, in a sentence; empty if nothing was.
    """

    results: list[Result]
    seconds: dict[str, float]
    outcomes: dict[SuiteKey, Outcomes]
    left_out: str = ""


class Evaluator:
    """Encodes the requests of tasks once and evaluates the parameters given to `run`.

    The metrics depend on the parameters, the data and the seed, not on batch sizes or on which
    other tasks and languages are evaluated.
    """

    def __init__(
        self,
        engine: Engine,
        corpus: Corpus | None,
        tasks: Iterable[str | Task],
        *,
        data_dir: str = "",
        languages: Sequence[str] | None = None,
        shots: int | None = None,
        benchmark_shots: int | None = None,
        examples: int | Mapping[str, int] | None = None,
        seed: int = 0,
        chat: Chat | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        """Builds and encodes all requests.

        Args:
            engine: scores and generates; its tokenizer encodes the prompts.
            corpus: held-out texts and pairs, and training pairs for the shots; None if all tasks
                are benchmarks.
            tasks: names or tasks; benchmarks as `NAME[:FORMAT][@SPLIT]`. A name that ends in "?"
                is skipped if there is no data for it.
            data_dir: the folder of the benchmarks' files.
            languages: codes; by default all of the paper, for a benchmark all that have files.
                A language without held-out data for a task has no rows of that task.
            shots: shots in each prompt, by default the task's number.
            benchmark_shots: the same for benchmarks whose name states none, by default the paper's.
            examples: at most so many items per language, task and part (subject), or a number by
                task or benchmark (EVERY_TASK for those without one); None for all.
            seed: seed of the choice of items, shots and options.
            chat: the model's chat template; if set, each prompt of a generation benchmark is one
                user message in it.
            max_new_tokens: length limit of answers to generation benchmarks, by default the
                format's.

        Raises:
            ValueError: a task or language is unknown, a number is too small, or a task has no
                data in any language or too few shots.
        """
        self._engine, self._corpus, self._data_dir, self._seed = engine, corpus, data_dir, seed
        parsed = [_parse(task) if isinstance(task, str) else (task, False) for task in tasks]
        self._tasks = list({task.name: task for task, _ in parsed}.values())
        optional = {task.name for task, may_be_missing in parsed if may_be_missing}
        self._shots = {task.name: _shots(task, shots, benchmark_shots) for task in self._tasks}
        self._chat, self._max_new_tokens = chat, max_new_tokens
        self._suites: dict[SuiteKey, Suite] = {}
        check_at_least("shots", shots, 0)
        check_at_least("shots", benchmark_shots, 0)
        check_at_least("max_new_tokens", max_new_tokens, 1)
        self._limits: dict[str, int | None] = {}
        for task in tuple(self._tasks):
            limit = _limit(task, examples)
            check_at_least("examples", limit, 1)
            self._limits[task.name] = limit
            for language in self._languages(task, languages):
                suite = self._build(task, language, limit)
                if suite is not None:
                    self._suites[task.name, language] = suite
            if not any(name == task.name for name, _ in self._suites):
                self._drop(task, languages, task.name in optional)

    def refresh(self) -> None:
        """Builds the requests of the corpus' tasks again, after its held-out texts have changed.

        A language of a task that has nothing held out any more is left out.
        """
        known = {task.name: task for task in self._tasks}
        for name, language in list(self._suites):
            if isinstance(known[name], BenchmarkTask):
                continue
            suite = self._build(known[name], language, self._limits[name])
            if suite is None:
                del self._suites[name, language]
            else:
                self._suites[name, language] = suite

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the evaluated tasks."""
        return tuple(task.name for task in self._tasks)

    def _drop(self, task: AnyTask, languages: Sequence[str] | None, optional: bool) -> None:
        """Drops an optional task without data; raises for one that is not optional."""
        among = ", ".join(languages or ()) or "any of the known languages"
        where = f" below {self._data_dir}" if isinstance(task, BenchmarkTask) else ""
        missing = f"task {task.name!r} has no held-out data{where} in {among}"
        if not optional:
            raise ValueError(f"{missing}: choose other languages or other data")
        _log.info(f"{missing}: the task is skipped")
        self._tasks.remove(task)

    def _languages(self, task: AnyTask, asked: Sequence[str] | None) -> Sequence[str]:
        """Languages to try for a task."""
        benchmarks = [task for task in self._tasks if isinstance(task, BenchmarkTask)]
        of_benchmarks = {code for other in benchmarks for code in other.benchmark.languages}
        for code in asked or ():
            # Benchmarks also have pairs and languages outside the paper.
            if code not in of_benchmarks and not (benchmarks and "-" in code):
                get_language(code)
        if not isinstance(task, BenchmarkTask):
            if task.kind == "registered":
                return [self._language_of(task)]
            return [code for code in asked or LANGUAGES if code in LANGUAGES]
        if not self._data_dir:
            raise ValueError(
                f"task {task.name!r} reads files: data_dir must name the folder that holds "
                f"{task.benchmark.folder}/"
            )
        return task.languages(self._data_dir, asked)

    def _language_of(self, task: Task) -> str:
        """The language of a registered task."""
        name = task.name.removeprefix(REGISTERED)
        languages = {info.name: info.language for info in self._corpus.infos()}
        if not languages.get(name, "unknown"):
            raise ValueError(
                f"the language of the task {name!r} is not known: write "
                f"mixture.tasks.languages={name}=kk (or its own code)"
            )
        return languages.get(name, "")

    def _build(self, task: AnyTask, language: str, examples: int | None) -> Suite | None:
        """Builds the task's suite in a language; None if there is no data."""
        tokenizer, corpus, seed = self._engine.tokenizer, self._corpus, self._seed
        shots = self._shots[task.name]
        if isinstance(task, BenchmarkTask):
            return task.suite(
                *(tokenizer, language, self._data_dir),
                shots=shots,
                limit=examples,
                chat=self._chat,
                max_new_tokens=self._max_new_tokens,
            )
        if task.kind == "registered":
            name = task.name.removeprefix(REGISTERED)
            return RegisteredSuite.build(tokenizer, corpus, name, examples, self._max_new_tokens)
        if task.kind == "rolling":
            texts = few_shot.seeded_order(corpus.texts(language, "held_out"), str, seed)[:examples]
            suite = RollingSuite.build(tokenizer, texts, self._engine.max_length)
            return suite if suite.examples else None
        if language == SOURCE_LANGUAGE:
            return None
        held_out = corpus.pairs(SOURCE_LANGUAGE, language, "held_out")
        pairs = few_shot.usable_pairs(held_out, task.max_characters)
        if len(pairs) < (few_shot.OPTIONS if task.kind == "multiple_choice" else 1):
            return None
        solved = few_shot.choose_shots(corpus, SOURCE_LANGUAGE, language, shots, seed)
        if task.kind == "multiple_choice":
            return ChoiceSuite.build(tokenizer, few_shot.pick_items(pairs, solved, examples, seed))
        questions = few_shot.translation_items(pairs, solved, examples, seed, task.max_new_tokens)
        return GenerationSuite.build(tokenizer, questions, Judge(task.metrics))

    @property
    def shots(self) -> dict[str, int]:
        """The number of shots of each task."""
        return dict(self._shots)

    def saved_rounds(self, results: pathlib.Path, model: str) -> SavedRounds:
        """Finished rounds of an earlier `run` with the same results file, model and requests."""
        return SavedRounds(results, f"{model} {self._seed}", self._suites)

    def run(
        self,
        params: Any,
        *,
        max_seconds: float = 0.0,
        saved: SavedRounds | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> Evaluation:
        """Evaluates parameters without moving them off their mesh.

        Args:
            params: of the model.
            max_seconds: 0, or how long it may take: the same share of the items of every task and
                language is left out where the time does not suffice for all. A sixteenth is
                evaluated in any case.
            saved: keeps finished rounds; those that it has already are not asked again.
            between: called after each batch of requests; what it raises ends the evaluation.
        """
        if saved:
            rounds = blocks(self._suites)
        else:
            rounds = shares(self._suites) if max_seconds else one_round(self._suites)
        seconds = {task.name: 0.0 for task in self._tasks}
        finished: list[dict[SuiteKey, Outcomes]] = list(saved.finished) if saved else []
        begin = time.perf_counter()
        for name, group in itertools.groupby(enumerate(rounds), key=lambda one: one[1].name):
            planned = list(group)
            known = sum(one.size for number, one in planned if number < len(finished))
            total = sum(one.size for _, one in planned)
            with Progress(name, total, "items", initial=known) as progress:
                for number, one in planned:
                    if number < len(finished):
                        continue
                    started = time.perf_counter()
                    finished.append(self._ask(params, one, seconds, progress, between))
                    if saved:
                        saved.add(finished[-1])
                    now = time.perf_counter()
                    late = max_seconds and now - begin + (now - started) > max_seconds
                    if max_seconds and agree("late" if late else ""):
                        break
            if saved and known < total:
                _log.info(f"{name}: {progress.done:,.0f} items in {duration(progress.seconds)}")
        outcomes = {
            key: Outcomes.join([one[key] for one in finished if key in one])
            for key in self._suites
            if any(key in one for one in finished)
        }
        return Evaluation(
            result_rows(self._tasks, outcomes, self._shots, self._seed),
            seconds,
            outcomes,
            _left_out(rounds, finished, max_seconds),
        )

    def _ask(
        self,
        params: Any,
        asked: Round,
        seconds: dict[str, float],
        progress: Progress,
        between: Callable[[], None],
    ) -> dict[SuiteKey, Outcomes]:
        """Asks the engine the items of a round."""
        chosen = {
            # Suites are large: the whole of one is not copied.
            key: suite if len(rows) == suite.examples else suite.take(rows)
            for key, rows in asked.rows.items()
            for suite in (self._suites[key],)
        }
        outcomes: dict[SuiteKey, Outcomes] = {}
        for generates, ask in ((False, self._engine.score), (True, self._engine.generate)):
            suites = {key: one for key, one in chosen.items() if one.generates == generates}
            if not suites:
                continue
            started = time.perf_counter()
            requests = [request for suite in suites.values() for request in suite.requests]
            items = sum(suite.examples for suite in suites.values()) / len(requests)

            def finished(count: int, items: float = items) -> None:
                progress(count * items)
                between()

            answers = iter(ask(params, requests, finished=finished))
            for key, suite in suites.items():
                own = list(itertools.islice(answers, len(suite.requests)))
                outcomes[key] = suite.outcomes(own)
            _divide_time(seconds, suites, time.perf_counter() - started)
        return outcomes


def _left_out(rounds: Sequence[Round], finished: Sequence[Any], max_seconds: float) -> str:
    """What a time limit left out, in a sentence; empty if all rounds are finished."""
    if len(finished) == len(rounds):
        return ""
    asked, total = (sum(one.size for one in own) for own in (rounds[: len(finished)], rounds))
    return (
        f"max_seconds is {max_seconds:g}: {asked:,} of {total:,} items were evaluated, the same "
        "share of every task and language"
    )


def _parse(text: str) -> tuple[AnyTask, bool]:
    """The task with a name such as "translation?", and whether it is optional."""
    name, optional = named_task(text)
    return (BenchmarkTask.parse(name) if is_benchmark(name) else get_task(name)), optional


def _shots(task: AnyTask, shots: int | None, benchmark_shots: int | None) -> int:
    asked = shots
    if isinstance(task, BenchmarkTask):
        asked = benchmark_shots if task.asked_shots is None else None
    elif task.kind == "rolling":
        return 0
    return task.shots if asked is None else asked


def _limit(task: AnyTask, examples: int | Mapping[str, int] | None) -> int | None:
    """The most items of a task in a language: by its name, its benchmark's, or that of all."""
    if not isinstance(examples, Mapping):
        return examples
    benchmark = task.benchmark.name if isinstance(task, BenchmarkTask) else task.name
    named = (examples.get(name) for name in (task.name, benchmark, EVERY_TASK))
    return next((limit for limit in named if limit is not None), None)


def _divide_time(
    seconds: dict[str, float], suites: Mapping[SuiteKey, Suite], elapsed: float
) -> None:
    """Adds the time of an engine call to its tasks, in proportion to their tokens."""
    tokens = {name: sum(map(_tokens, suite.requests)) for name, suite in suites.items()}
    for (task, _), count in tokens.items():
        seconds[task] += elapsed * count / sum(tokens.values())


def _tokens(request: ScoreRequest | GenerateRequest) -> int:
    if isinstance(request, ScoreRequest):
        return len(request.context) + len(request.continuation)
    return len(request.prompt) + request.max_new_tokens
