"""Evaluates tasks: encodes requests once, then runs the parameters of a model or training run."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from marco_jax.data.corpus import Corpus
from marco_jax.data.task_info import REGISTERED
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, ScoreRequest
from marco_jax.evaluation import few_shot, metrics
from marco_jax.evaluation.benchmark_tasks import BenchmarkTask, is_benchmark
from marco_jax.evaluation.benchmarks.prompts import check_at_least
from marco_jax.evaluation.builtin_tasks import Task, get_task, named_task
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.generation_suites import GenerationSuite, Judge, Question
from marco_jax.evaluation.metrics import Estimate
from marco_jax.evaluation.registered_suites import RegisteredSuite
from marco_jax.evaluation.results import ALL, HIGH, LOW, MEAN, Result
from marco_jax.evaluation.suites import ChoiceSuite, RollingSuite
from marco_jax.languages import LANGUAGES, get_language, high_resource, low_resource
from marco_jax.runtime.progress import Progress

_log = logging.getLogger(__name__)

SOURCE_LANGUAGE = "en"

AnyTask = Task | BenchmarkTask
Suite = RollingSuite | ChoiceSuite | GenerationSuite | RegisteredSuite

# A task's name and a language; estimates by metric.
_Key = tuple[str, str]
Estimates = dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation.

    Attributes:
        results: one row per task, language and metric; averages follow the languages.
        seconds: wall-clock time by task. Tasks of one kind share engine calls, whose time is
            divided in proportion to their tokens.
    """

    results: list[Result]
    seconds: dict[str, float]


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
            benchmark_shots: the same for benchmarks, by default the paper's number.
            examples: at most so many items per language, task and part (subject), or a number by
                task name; None for all.
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
        self._suites: dict[_Key, Suite] = {}
        check_at_least("shots", shots, 0)
        check_at_least("shots", benchmark_shots, 0)
        check_at_least("max_new_tokens", max_new_tokens, 1)
        self._limits: dict[str, int | None] = {}
        for task in tuple(self._tasks):
            limit = examples.get(task.name) if isinstance(examples, Mapping) else examples
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
                seed=seed,
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
        questions = [
            Question(prompt, (reference,), max_new_tokens=task.max_new_tokens)
            for prompt, reference in zip(
                *few_shot.translation_items(pairs, solved, examples, seed), strict=True
            )
        ]
        return GenerationSuite.build(tokenizer, questions, Judge(task.metrics), seed=seed)

    def run(self, params: Any) -> Evaluation:
        """Evaluates parameters without moving them off their mesh."""
        seconds = {task.name: 0.0 for task in self._tasks}
        estimates: dict[_Key, Estimates] = {}
        parts: dict[_Key, dict[str, Estimates]] = {}
        for generates, ask in ((False, self._engine.score), (True, self._engine.generate)):
            suites = {key: one for key, one in self._suites.items() if one.generates == generates}
            if not suites:
                continue
            started = time.perf_counter()
            asked = [request for suite in suites.values() for request in suite.requests]
            name = "generating answers" if generates else "scoring"
            with Progress(name, len(asked), "requests") as progress:
                answers = iter(ask(params, asked, finished=progress))
            for name, suite in suites.items():
                own = list(itertools.islice(answers, len(suite.requests)))
                estimates[name] = suite.estimates(own)
                if isinstance(suite, ChoiceSuite):
                    parts[name] = suite.part_estimates(own)
            _divide_time(seconds, suites, time.perf_counter() - started)
        return Evaluation(self._results(estimates, parts), seconds)

    def _results(
        self, estimates: dict[_Key, Estimates], parts: dict[_Key, dict[str, Estimates]]
    ) -> list[Result]:
        results = []
        for task in self._tasks:
            by_language = {
                language: own for (name, language), own in estimates.items() if name == task.name
            }
            # Functions of registered tasks name their metrics themselves.
            names = task.metrics or dict.fromkeys(m for own in by_language.values() for m in own)
            rows = [
                self._row(task.name, language, metric, own[metric])
                for metric in names
                for language, own in by_language.items()
                # spBLEU is missing where its SentencePiece model is.
                if metric in own
            ]
            results += rows + averages(rows)
            for row in rows:
                results += self._part_rows(row, parts.get((row.task, row.language), {}))
        return results

    def _part_rows(self, row: Result, parts: dict[str, Estimates]) -> Iterator[Result]:
        """Yields a result row per part (subject) of a task in a language, then their mean."""
        if not parts:
            return
        estimates = {part: own[row.metric] for part, own in parts.items()}
        estimates[MEAN] = metrics.macro_mean(list(estimates.values()))
        sizes = {**self._suites[row.task, row.language].part_sizes, MEAN: row.examples}
        for part, estimate in estimates.items():
            yield dataclasses.replace(
                row, value=estimate.value, stderr=estimate.stderr, examples=sizes[part], part=part
            )

    def _row(self, task: str, language: str, metric: str, estimate: Estimate) -> Result:
        suite = self._suites[task, language]
        signature = suite.signature(metric) if isinstance(suite, GenerationSuite) else ""
        values = estimate.value, estimate.stderr, suite.examples, signature
        return Result(task, language, self._shots[task], metric, *values)


def _parse(text: str) -> tuple[AnyTask, bool]:
    """The task with a name such as "translation?", and whether it is optional."""
    name, optional = named_task(text)
    return (BenchmarkTask.parse(name) if is_benchmark(name) else get_task(name)), optional


def _shots(task: AnyTask, shots: int | None, benchmark_shots: int | None) -> int:
    if not isinstance(task, BenchmarkTask) and task.kind == "rolling":
        return 0
    asked = benchmark_shots if isinstance(task, BenchmarkTask) else shots
    return task.shots if asked is None else asked


def averages(rows: Sequence[Result]) -> list[Result]:
    """Macro means over all, high-resource and low-resource languages of each task and metric.

    A group without a language in `rows` has no row.
    """
    results = []
    for task, shots, metric in dict.fromkeys((row.task, row.shots, row.metric) for row in rows):
        same = [row for row in rows if (row.task, row.shots, row.metric) == (task, shots, metric)]
        for group, codes in ((ALL, None), (HIGH, high_resource()), (LOW, low_resource())):
            members = [row for row in same if codes is None or row.language in codes]
            if members:
                mean = metrics.macro_mean([Estimate(row.value, row.stderr) for row in members])
                examples = sum(row.examples for row in members)
                signatures = {row.signature for row in members}
                signature = signatures.pop() if len(signatures) == 1 else "mixed"
                values = mean.value, mean.stderr, examples, signature
                results.append(Result(task, group, shots, metric, *values))
    return results


def _divide_time(seconds: dict[str, float], suites: Mapping[_Key, Suite], elapsed: float) -> None:
    """Adds the time of an engine call to its tasks, in proportion to their tokens."""
    tokens = {name: sum(map(_tokens, suite.requests)) for name, suite in suites.items()}
    for (task, _), count in tokens.items():
        seconds[task] += elapsed * count / sum(tokens.values())


def _tokens(request: ScoreRequest | GenerateRequest) -> int:
    if isinstance(request, ScoreRequest):
        return len(request.context) + len(request.continuation)
    return len(request.prompt) + request.max_new_tokens
