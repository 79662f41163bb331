"""From items to prompts: the small interpreter of `spec.Format`."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator, Mapping, Sequence

from marco_jax.evaluation.benchmarks.items import Item
from marco_jax.evaluation.benchmarks.spec import LETTERS, TEXTS, Benchmark, Format


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A question as a model sees it.

    `(context, choice)` for each of `choices` are, character for character, the arguments of
    lm-evaluation-harness's loglikelihood requests in formats that follow it: choices start with
    the delimiter. Lengths for normalised accuracy are those of `options`, without it.

    Attributes:
        task: the benchmark's name.
        language: code, or pair of codes for translation.
        part: subject; empty where the benchmark has none.
        index: number of the item in its part's file, from 0.
        context: everything before the answer; it ends without a space unless the format has one.
        delimiter: between context and answer.
        choices: what is scored: the delimiter and the text of each choice; empty for generation.
        options: the same texts without the delimiter.
        gold: number of the right choice; a tuple where several are right; None for generation.
        references: right answers of a generation task, without delimiter.
        stop: strings that generation ends before.
        max_new_tokens: of a generated answer.
        place: "file:line" of the item.
        fields: the item's record.
    """

    task: str
    language: str
    part: str
    index: int
    context: str
    delimiter: str
    choices: tuple[str, ...]
    options: tuple[str, ...]
    gold: int | tuple[int, ...] | None
    references: tuple[str, ...]
    stop: tuple[str, ...]
    max_new_tokens: int
    place: str
    fields: Mapping[str, object]

    @property
    def golds(self) -> tuple[int, ...]:
        """The right choices, as a tuple in any case."""
        if self.gold is None:
            return ()
        return self.gold if isinstance(self.gold, tuple) else (self.gold,)


@dataclasses.dataclass(frozen=True)
class Renderer:
    """Writes prompts of one part of a benchmark.

    Attributes:
        benchmark: what is asked.
        format: how.
        language: code or pair.
        part: subject or "".
        words: what templates may name besides an item's fields.
    """

    benchmark: Benchmark
    format: Format
    language: str
    part: str
    words: Mapping[str, str]

    def prompt(self, index: int, item: Item, shots: Sequence[Item]) -> Prompt:
        """The prompt of an item after solved examples."""
        form = self.format
        template = form.context if shots else form.zero_shot_context or form.context
        context = "".join(
            [
                self._fill(form.description, item, 0)
                if shots or not form.zero_shot_context
                else "",
                *self._solved(shots),
                self._fill(template, item, len(shots) + 1),
            ]
        )
        options = self._options(item, len(shots) + 1)
        gold = item.gold[0] if len(item.gold) == 1 else item.gold or None
        return Prompt(
            task=self.benchmark.name,
            language=self.language,
            part=self.part,
            index=index,
            context=context,
            delimiter=form.delimiter,
            choices=tuple(form.delimiter + option for option in options),
            options=options,
            gold=gold,
            references=item.references,
            stop=tuple(self._fill(stop, item, 0) for stop in form.stop),
            max_new_tokens=form.max_new_tokens,
            place=item.row.place,
            fields=item.row.fields,
        )

    def _solved(self, shots: Sequence[Item]) -> Iterator[str]:
        form = self.format
        for number, shot in enumerate(shots, 1):
            yield self._fill(form.shot_context or form.context, shot, number)
            yield form.delimiter
            if form.choices:
                yield self._options(shot, number)[shot.gold[0]]
            else:
                if not shot.references:
                    shot.row.fail("it has no answer, so it can be no shot: get files with answers")
                yield self._fill(form.target, shot, number)
            yield form.shot_delimiter

    def _options(self, item: Item, number: int) -> tuple[str, ...]:
        choices = self.format.choices
        if choices == LETTERS:
            return tuple(string.ascii_uppercase[: len(item.options)])
        if choices == TEXTS:
            return item.options
        return tuple(self._fill(choice, item, number) for choice in choices)

    def _fill(self, template: str, item: Item, number: int) -> str:
        """The template with the item's fields; texts may hold braces, they are not looked into."""
        letters = string.ascii_uppercase
        shown = self.format.option_delimiter.join(
            self.format.option.format(letter=letter, text=text)
            for letter, text in zip(letters, item.options, strict=False)
        )
        fields = {
            **self.words,
            **item.texts,
            "part": self.part,
            "subject": self.benchmark.part_names.get(self.part, self.part.replace("_", " ")),
            "options": shown,
            "last_letter": letters[len(item.options) - 1] if item.options else "",
            "reference": item.references[0] if item.references else "",
            "number": number,
        }
        if self.benchmark.word_by:
            chooser = item.texts[self.benchmark.word_by]
            if chooser not in self.words:
                known = ", ".join(map(repr, self.words))
                item.row.fail(f"{self.benchmark.word_by} is {chooser!r}: it must be one of {known}")
            fields["word"] = self.words[chooser]
        return template.format(**fields)
