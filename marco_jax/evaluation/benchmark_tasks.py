"""Makes evaluator tasks of benchmarks: parses names, lists languages, builds suites."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from marco_jax.data.chat import USER
from marco_jax.evaluation import benchmarks
from marco_jax.evaluation.benchmarks.prompts import check_split, get_format
from marco_jax.evaluation.benchmarks.source_files import split_pair
from marco_jax.evaluation.benchmarks.spec import Benchmark, Format
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.generation_suites import (
    INSTRUCTION_METRICS,
    GenerationSuite,
    Judge,
    Question,
)
from marco_jax.evaluation.instructions import instructions_of
from marco_jax.evaluation.outcomes import item_key
from marco_jax.evaluation.suites import ChoiceItem, ChoiceSuite
from marco_jax.tokenizers.tokenizer import Tokenizer

# What a config says for the paper's number of shots.
PAPER_SHOTS = -1


def configured_shots(number: int) -> int | None:
    """A config's number of shots of benchmarks; None for the paper's."""
    return None if number == PAPER_SHOTS else number


@dataclasses.dataclass(frozen=True)
class BenchmarkTask:
    """A benchmark in a format, named `NAME[:FORMAT][:SHOTS][@SPLIT]`, such as "mmlu:5".

    `name` is the task's name as requested, also used in results; `split` is the split to evaluate,
    None for the benchmark's default; `asked_shots` is the number of shots that the name states.
    """

    name: str
    benchmark: Benchmark
    format: Format
    split: str | None = None
    asked_shots: int | None = None

    @classmethod
    def parse(cls, name: str) -> BenchmarkTask:
        """Parses a task name.

        Raises:
            ValueError: the benchmark, format or split is unknown.
        """
        rest, _, split = name.partition("@")
        task, *options = rest.split(":")
        benchmark = benchmarks.get_benchmark(task)
        check_split(benchmark, split or None)
        shots = int(options.pop()) if options and options[-1].isdecimal() else None
        form = get_format(benchmark, ":".join(options) or None)
        return cls(name, benchmark, form, split or None, shots)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of its metrics, the main one first."""
        return self.format.metrics

    @property
    def shots(self) -> int:
        """Number of shots in a prompt that the name states, or the default."""
        if self.asked_shots is not None:
            return self.asked_shots
        return self.benchmark.default_shots(self.format)

    def languages(self, data_dir: str, asked: Sequence[str] | None) -> list[str]:
        """The requested languages (None: all) that have files.

        A benchmark of language pairs takes pairs; a single language means its pairs with English
        in both directions.
        """
        found = benchmarks.available_languages(self.benchmark.name, data_dir, self.split)
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
        chat: Chat | None = None,
        max_new_tokens: int | None = None,
    ) -> ChoiceSuite | GenerationSuite:
        """Builds the requests of the task in a language.

        With `chat`, prompts of generation tasks become user messages in the chat template.

        Raises:
            ValueError, OSError: see `benchmarks.prompts`.
        """
        form = next(name for name, form in self.benchmark.formats.items() if form is self.format)
        found = list(
            benchmarks.prompts(
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
            items = [
                ChoiceItem(
                    *(prompt.context, prompt.options, prompt.golds),
                    delimiter=prompt.delimiter,
                    part=prompt.part,
                    key=item_key(prompt.fields),
                    question=prompt.question,
                )
                for prompt in found
            ]
            return ChoiceSuite.build(tokenizer, items, self.metrics)
        source, target = split_pair(self.benchmark, language)
        context = self.benchmark.pairs == "context"
        judge = Judge(
            self.metrics,
            # Answers are either spans of the context or translations.
            language=source if context else target,
            rules=self.format.span_rules,
            sentence=self.benchmark.words.get(language, {}).get("answer_sentence", ""),
        )
        questions = [self._question(prompt, chat, max_new_tokens) for prompt in found]
        return GenerationSuite.build(tokenizer, questions, judge)

    def _question(
        self, prompt: benchmarks.Prompt, chat: Chat | None, max_new_tokens: int | None
    ) -> Question:
        if not prompt.references:
            raise benchmarks.DataError(
                f"{prompt.location}: it has no reference answer: get a version of the data with "
                "answers"
            )
        text, stop, instructions = prompt.context, prompt.stop, ()
        if chat:
            text = chat.template.prompt([{"role": USER, "content": text}])
            stop = (*stop, *chat.stop)
        if not INSTRUCTION_METRICS.keys().isdisjoint(self.metrics):
            instructions = instructions_of(prompt.fields, prompt.location)
        tokens = max_new_tokens or prompt.max_new_tokens
        return Question(
            *(text, prompt.references, stop, tokens, instructions),
            part=prompt.part,
            key=item_key(prompt.fields),
            question=prompt.question,
        )


def is_benchmark(name: str) -> bool:
    """Whether a task name (with or without format and split) names a benchmark."""
    return name.partition("@")[0].partition(":")[0] in benchmarks.BENCHMARKS
