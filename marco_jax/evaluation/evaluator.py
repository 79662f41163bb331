"""Evaluation in the training loop and alone: builds requests once, asks them of any parameters."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from marco_jax.data.corpus import Pair
from marco_jax.decoding.requests import GenerateRequest, Generation, Score, ScoreRequest
from marco_jax.evaluation import metrics
from marco_jax.evaluation.benchmark_tasks import BenchmarkTask, is_benchmark
from marco_jax.evaluation.builtin_tasks import Task, get_task, named_task
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.few_shot import choose_shots, held_out_pairs, seeded_order
from marco_jax.evaluation.generation_suites import GenerationSuite, Judge, Question
from marco_jax.evaluation.metrics import Estimate
from marco_jax.evaluation.results import ALL, HIGH, LOW, MEAN, Result
from marco_jax.evaluation.suites import ChoiceSuite, RollingSuite, Suite
from marco_jax.evaluation.translation_items import OPTIONS, pick_items, translation_items
from marco_jax.languages import HIGH_RESOURCE, LANGUAGES, LOW_RESOURCE, get_language
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

SOURCE_LANGUAGE = "en"

AnyTask = Task | BenchmarkTask


class ScoringEngine(Protocol):
    """What the evaluator needs of `marco_jax.decoding.engine.Engine`."""

    tokenizer: Tokenizer
    max_length: int

    def score(
        self, params: Any, requests: Sequence[ScoreRequest], *, finished: Callable[[int], None]
    ) -> list[Score]:
        """Log-probabilities in the order asked."""
        ...

    def generate(
        self, params: Any, requests: Sequence[GenerateRequest], *, finished: Callable[[int], None]
    ) -> list[Generation]:
        """Greedy continuations in the order asked."""
        ...


class HeldOutCorpus(Protocol):
    """What the evaluator needs of `marco_jax.data.corpus.Corpus`."""

    def texts(self, language: str, split: str) -> list[str]:
        """Plain texts of a language."""
        ...

    def pairs(self, source_language: str, target_language: str, split: str) -> list[Pair]:
        """Translation pairs."""
        ...


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation.

    Attributes:
        results: a row a task, language and metric, averages after the languages.
        seconds: wall clock by task. Tasks of one kind share calls of the engine, whose time is
            split by their tokens.
    """

    results: list[Result]
    seconds: dict[str, float]


class Evaluator:
    """Tasks over held-out data, encoded once and asked of the parameters given to `run`.

    The figures depend on the parameters, the data and the seed, not on batch sizes or on which
    other tasks and languages are evaluated.
    """

    def __init__(
        self,
        engine: ScoringEngine,
        corpus: HeldOutCorpus | None,
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
            corpus: held-out texts and pairs, and training pairs for the shots; None where all
                tasks are benchmarks.
            tasks: names or tasks; benchmarks as `NAME[:FORMAT][@SPLIT]`. One that is named with a
                "?" behind it is left out where there is no data for it.
            data_dir: the files of the benchmarks.
            languages: codes; by default all of the paper's, for a benchmark all that have files.
                One without held-out data for a task has no rows of that task.
            shots: solved examples in each prompt, the task's own number by default.
            benchmark_shots: the same for benchmarks, where the default is the paper's number.
            examples: upper bound of items a language, task and part (subject), or one by task
                name; None for all.
            seed: of the choice of items, shots and options.
            chat: how the model talks, if benchmarks whose answers are written are to be asked in
                its chat template, a prompt as one user's message.
            max_new_tokens: of answers to these benchmarks, the format's own number by default.

        Raises:
            ValueError: a task or language is unknown, a number is too small, or a task has no
                data in any language, or too few shots.
        """
        self._engine, self._corpus, self._data_dir, self._seed = engine, corpus, data_dir, seed
        parsed = [_parse(task) if isinstance(task, str) else (task, False) for task in tasks]
        self._tasks = list({task.name: task for task, _ in parsed}.values())
        optional = {task.name for task, may_be_missing in parsed if may_be_missing}
        self._shots = {
            task.name: _shots(task, benchmark_shots if _is_benchmark(task) else shots)
            for task in self._tasks
        }
        self._chat, self._max_new_tokens = chat, max_new_tokens
        self._suites: dict[tuple[str, str], Suite] = {}
        _check_at_least("shots", shots, 0)
        _check_at_least("shots", benchmark_shots, 0)
        _check_at_least("max_new_tokens", max_new_tokens, 1)
        for task in tuple(self._tasks):
            limit = examples.get(task.name) if isinstance(examples, Mapping) else examples
            _check_at_least("examples", limit, 1)
            for language in self._languages(task, languages):
                suite = self._build(task, language, limit)
                if suite is not None:
                    self._suites[task.name, language] = suite
            if not any(name == task.name for name, _ in self._suites):
                self._leave_out(task, languages, task.name in optional)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are evaluated."""
        return tuple(task.name for task in self._tasks)

    def _leave_out(self, task: AnyTask, languages: Sequence[str] | None, optional: bool) -> None:
        """Drops a task that there is no data for; refuses one that is not optional."""
        among = ", ".join(languages or ()) or "any of the 29 languages"
        where = f" below {self._data_dir}" if _is_benchmark(task) else ""
        missing = f"task {task.name!r} has no held-out data{where} in {among}"
        if not optional:
            raise ValueError(f"{missing}: choose other languages or other data")
        _log.info(f"{missing}: it is left out")
        self._tasks.remove(task)

    def _languages(self, task: AnyTask, asked: Sequence[str] | None) -> Sequence[str]:
        """Languages to try for a task."""
        benchmarks = [task for task in self._tasks if _is_benchmark(task)]
        elsewhere = {code for other in benchmarks for code in other.benchmark.languages}
        for code in asked or ():
            # Benchmarks have languages besides the paper's, and pairs.
            if code not in elsewhere and not (benchmarks and "-" in code):
                get_language(code)
        if not _is_benchmark(task):
            return [code for code in asked or LANGUAGES if code in LANGUAGES]
        if not self._data_dir:
            raise ValueError(
                f"task {task.name!r} reads files: data_dir must name the folder that holds "
                f"{task.benchmark.folder}/"
            )
        return task.languages(self._data_dir, asked)

    def _build(self, task: AnyTask, language: str, examples: int | None) -> Suite | None:
        """The task's suite in a language, or None where there is no data for it."""
        tokenizer, corpus, seed = self._engine.tokenizer, self._corpus, self._seed
        shots = self._shots[task.name]
        if _is_benchmark(task):
            return task.suite(
                *(tokenizer, language, self._data_dir),
                shots=shots,
                limit=examples,
                seed=seed,
                chat=self._chat,
                max_new_tokens=self._max_new_tokens,
            )
        if task.kind == "rolling":
            texts = seeded_order(corpus.texts(language, "held_out"), str, seed)[:examples]
            suite = RollingSuite.build(tokenizer, texts, self._engine.max_length)
            return suite if suite.examples else None
        if language == SOURCE_LANGUAGE:
            return None
        pairs = held_out_pairs(corpus, SOURCE_LANGUAGE, language, task.max_characters)
        if len(pairs) < (OPTIONS if task.kind == "multiple_choice" else 1):
            return None
        solved = choose_shots(corpus, SOURCE_LANGUAGE, language, shots, seed)
        if task.kind == "multiple_choice":
            return ChoiceSuite.build(tokenizer, pick_items(pairs, solved, examples, seed))
        asked = zip(*translation_items(pairs, solved, examples, seed), strict=True)
        questions = [
            Question(prompt, (reference,), max_new_tokens=task.max_new_tokens)
            for prompt, reference in asked
        ]
        return GenerationSuite.build(tokenizer, questions, Judge(task.metrics), seed=seed)

    def run(self, params: Any) -> Evaluation:
        """Evaluates parameters, in place on whatever mesh they live."""
        seconds = {task.name: 0.0 for task in self._tasks}
        estimates: dict[tuple[str, str], dict[str, Estimate]] = {}
        parts: dict[tuple[str, str], dict[str, dict[str, Estimate]]] = {}
        for generates, ask in ((False, self._engine.score), (True, self._engine.generate)):
            suites = {
                name: suite for name, suite in self._suites.items() if suite.generates == generates
            }
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
            _share(seconds, suites, time.perf_counter() - started)
        return Evaluation(self._results(estimates, parts), seconds)

    def _results(
        self,
        estimates: Mapping[tuple[str, str], dict[str, Estimate]],
        parts: Mapping[tuple[str, str], dict[str, dict[str, Estimate]]],
    ) -> list[Result]:
        results = []
        for task in self._tasks:
            figures = {
                language: figure
                for (name, language), figure in estimates.items()
                if name == task.name
            }
            rows = [
                self._row(task, language, metric, figure[metric])
                for metric in task.metrics
                for language, figure in figures.items()
                # Without its model spBLEU has no figure.
                if metric in figure
            ]
            results += rows + averages(rows)
            for row in rows:
                results += self._part_rows(row, parts.get((row.task, row.language), {}))
        return results

    def _part_rows(
        self, row: Result, parts: Mapping[str, Mapping[str, Estimate]]
    ) -> Iterator[Result]:
        """The figures behind one of a task in a language: a row a subject, and their mean."""
        if not parts:
            return
        figures = {part: figure[row.metric] for part, figure in parts.items()}
        figures[MEAN] = metrics.macro_mean(list(figures.values()))
        sizes = {**self._suites[row.task, row.language].part_sizes, MEAN: row.examples}
        for part, figure in figures.items():
            yield dataclasses.replace(
                row, value=figure.value, stderr=figure.stderr, examples=sizes[part], part=part
            )

    def _row(self, task: AnyTask, language: str, metric: str, figure: Estimate) -> Result:
        examples = self._suites[task.name, language].examples
        shots = self._shots[task.name]
        suite = self._suites[task.name, language]
        signature = suite.signature(metric) if isinstance(suite, GenerationSuite) else ""
        return Result(
            task.name, language, shots, metric, figure.value, figure.stderr, examples, signature
        )


def _parse(text: str) -> tuple[AnyTask, bool]:
    """The task of a name such as "translation?", and whether it is optional."""
    name, optional = named_task(text)
    return (BenchmarkTask.parse(name) if is_benchmark(name) else get_task(name)), optional


def _is_benchmark(task: AnyTask) -> bool:
    return isinstance(task, BenchmarkTask)


def _shots(task: AnyTask, asked: int | None) -> int:
    if not _is_benchmark(task) and task.kind == "rolling":
        return 0
    return task.shots if asked is None else asked


def averages(rows: Sequence[Result]) -> list[Result]:
    """Macro means over languages of each task and metric: all, high-resource, low-resource.

    A group of which no language is there has no row.
    """
    results = []
    for task, shots, metric in dict.fromkeys((row.task, row.shots, row.metric) for row in rows):
        same = [row for row in rows if (row.task, row.shots, row.metric) == (task, shots, metric)]
        for group, codes in ((ALL, None), (HIGH, HIGH_RESOURCE), (LOW, LOW_RESOURCE)):
            members = [row for row in same if codes is None or row.language in codes]
            if members:
                mean = metrics.macro_mean([Estimate(row.value, row.stderr) for row in members])
                examples = sum(row.examples for row in members)
                signatures = {row.signature for row in members}
                signature = signatures.pop() if len(signatures) == 1 else "mixed"
                figures = mean.value, mean.stderr, examples, signature
                results.append(Result(task, group, shots, metric, *figures))
    return results


def _check_at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} is {value}: it must be at least {least}")


def _share(
    seconds: dict[str, float], suites: Mapping[tuple[str, str], Suite], elapsed: float
) -> None:
    """Adds the time of a call to its tasks, in proportion to the tokens that they asked about."""
    tokens = {name: sum(map(_tokens, suite.requests)) for name, suite in suites.items()}
    for (task, _), count in tokens.items():
        seconds[task] += elapsed * count / sum(tokens.values())


def _tokens(request: ScoreRequest | GenerateRequest) -> int:
    if isinstance(request, ScoreRequest):
        return len(request.context) + len(request.continuation)
    return len(request.prompt) + request.max_new_tokens
