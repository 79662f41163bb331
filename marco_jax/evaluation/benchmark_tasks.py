"""Benchmarks as tasks of the evaluator: names, languages and suites."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from marco_jax.data.chat import USER
from marco_jax.evaluation.benchmarks import (
    BENCHMARKS,
    DataError,
    Prompt,
    available_languages,
    get_benchmark,
    prompts,
)
from marco_jax.evaluation.benchmarks.prompts import default_shots, get_format
from marco_jax.evaluation.benchmarks.source_files import split_pair
from marco_jax.evaluation.benchmarks.spec import Benchmark, Format
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.generation_suites import (
    INSTRUCTION_METRICS,
    PROMPT_METRICS,
    GenerationSuite,
    Judge,
    Question,
)
from marco_jax.evaluation.instructions import instructions_of
from marco_jax.evaluation.suites import ChoiceItem, ChoiceSuite
from marco_jax.tokenizers.tokenizer import Tokenizer

_OF_INSTRUCTIONS = {*PROMPT_METRICS, *INSTRUCTION_METRICS}


@dataclasses.dataclass(frozen=True)
class BenchmarkTask:
    """A benchmark in a format, as named by `NAME[:FORMAT][@SPLIT]`.

    Attributes:
        name: as it was asked for and stands in results.
        benchmark: what is asked.
        format: how prompts are written.
        split: which split is asked about, the benchmark's own choice for None.
    """

    name: str
    benchmark: Benchmark
    format: Format
    split: str | None = None

    @classmethod
    def parse(cls, name: str) -> BenchmarkTask:
        """The task of a name.

        Raises:
            ValueError: benchmark, format or split is unknown.
        """
        rest, _, split = name.partition("@")
        task, _, form = rest.partition(":")
        benchmark = get_benchmark(task)
        if split and split not in benchmark.sources:
            known = ", ".join(benchmark.sources)
            raise ValueError(f"split {split!r} of {task} is unknown: known are {known}")
        return cls(name, benchmark, get_format(benchmark, form or None), split or None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of its figures, the headline first."""
        return self.format.metrics

    @property
    def shots(self) -> int:
        """Solved examples in a prompt unless the caller says otherwise."""
        return default_shots(self.benchmark, self.format)

    def languages(self, data_dir: str, asked: Sequence[str] | None) -> list[str]:
        """Those of the languages asked for (None: of all) that have files.

        A benchmark of pairs takes pairs; a single language stands for it and English both ways.
        """
        found = available_languages(self.benchmark.name, data_dir, self.split)
        if self.benchmark.pairs == "any":
            singles = found if asked is None else [code for code in asked if code in found]
            pairs = [
                pair
                for code in singles
                if code != "en" and "en" in found
                for pair in (f"en-{code}", f"{code}-en")
            ]
            return pairs + [code for code in asked or () if "-" in code]
        if asked is None:
            return found
        crossed = self.benchmark.pairs == "context"
        return [code for code in asked if code in found or (crossed and "-" in code)]

    def suite(
        self,
        tokenizer: Tokenizer,
        language: str,
        data_dir: str,
        *,
        shots: int | None,
        limit: int | None,
        seed: int,
        chat: Chat | None = None,
        max_new_tokens: int | None = None,
    ) -> ChoiceSuite | GenerationSuite:
        """The requests of the task in a language.

        With `chat` the prompts of answers that are written are users' messages in its template.

        Raises:
            ValueError, OSError: see `benchmarks.prompts`.
        """
        form = next(name for name, form in self.benchmark.formats.items() if form is self.format)
        found = list(
            prompts(
                self.benchmark.name,
                language,
                data_dir,
                format=form,
                shots=self.shots if shots is None else shots,
                limit=limit,
                split=self.split,
            )
        )
        if self.format.choices:
            return ChoiceSuite.build(tokenizer, [_choice(prompt) for prompt in found], self.metrics)
        source, target = split_pair(self.benchmark, language)
        context = self.benchmark.pairs == "context"
        judge = Judge(
            self.metrics,
            # Answers are spans of the context, or translations.
            language=source if context else target,
            rules=self.format.span_rules,
            sentence=self.benchmark.words.get(language, {}).get("answer_sentence", ""),
        )
        instructed = any(name in _OF_INSTRUCTIONS for name in self.metrics)
        questions = [_question(prompt, instructed) for prompt in found]
        if max_new_tokens:
            questions = [
                dataclasses.replace(question, max_new_tokens=max_new_tokens)
                for question in questions
            ]
        if chat:
            questions = [_in_chat(question, chat) for question in questions]
        return GenerationSuite.build(tokenizer, questions, judge, seed=seed)


def is_benchmark(name: str) -> bool:
    """Whether a task's name is that of a benchmark, maybe with a format and a split."""
    return name.partition("@")[0].partition(":")[0] in BENCHMARKS


def _choice(prompt: Prompt) -> ChoiceItem:
    return ChoiceItem(
        prompt.context,
        prompt.options,
        prompt.golds,
        delimiter=prompt.delimiter,
        part=prompt.part,
    )


def _in_chat(question: Question, chat: Chat) -> Question:
    message = {"role": USER, "content": question.prompt}
    return dataclasses.replace(
        question, prompt=chat.prompt([message]), stop=(*question.stop, *chat.stop)
    )


def _question(prompt: Prompt, instructed: bool) -> Question:
    if not prompt.references:
        raise DataError(
            f"{prompt.place}: it has no answer to compare with; some copies are published "
            "without, get one with answers"
        )
    return Question(
        *(prompt.context, prompt.references, prompt.stop, prompt.max_new_tokens),
        instructions=instructions_of(prompt.fields, prompt.place) if instructed else (),
    )
