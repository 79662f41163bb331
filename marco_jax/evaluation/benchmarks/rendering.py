"""Writes prompts of items in a `spec.Format`."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator, Mapping, Sequence

from marco_jax.evaluation.benchmarks.items import EDITS, Item
from marco_jax.evaluation.benchmarks.spec import LETTERS, ROW_NUMBER, TEXTS, Benchmark, Format


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A question as a model reads it.

    In formats that follow lm-evaluation-harness, `(context, choice)` for each of `choices` equals
    the arguments of its loglikelihood requests, character for character: choices start with the
    delimiter. Normalised accuracy uses the lengths of `options`, without the delimiter.

    Attributes:
        task: the benchmark's name.
        language: code, or pair of codes for translation.
        part: subject; empty if the benchmark has none.
        index: number of the item in its part's file, from 0.
        context: everything before the answer; it ends without a space unless the format has one.
        delimiter: text between context and answer.
        choices: the scored texts: the delimiter and each choice; empty for generation.
        options: the same texts without the delimiter.
        gold: index of the right choice; a tuple if several are right; None for generation.
        references: reference answers of a generation task, without delimiter.
        stop: strings that generation ends before.
        max_new_tokens: maximum length of a generated answer.
        location: "file:line" of the item.
        fields: the item's record.
        question: what the item asks, the same in all languages that have its translation; empty if
            that is not known.
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
    location: str
    fields: Mapping[str, object]
    question: str = ""

    @property
    def golds(self) -> tuple[int, ...]:
        """The indices of the right choices, always as a tuple."""
        if self.gold is None:
            return ()
        return self.gold if isinstance(self.gold, tuple) else (self.gold,)


@dataclasses.dataclass(frozen=True)
class Renderer:
    """Writes the prompts of one part of a benchmark.

    `words` are the values of template fields besides those of an item.
    """

    benchmark: Benchmark
    format: Format
    language: str
    part: str
    words: Mapping[str, str]

    def prompt(self, index: int, item: Item, shots: Sequence[Item]) -> Prompt:
        """Writes the prompt of an item after its shots."""
        form = self.format
        if shots or not form.zero_shot_context:
            question = self._fill(form.context, item, len(shots) + 1)
            description = self._fill(form.description, item, 0)
            context = "".join([description, *self._solved(shots), question])
        else:
            context = self._fill(form.zero_shot_context, item, 1)
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
            location=item.row.location,
            fields=item.row.fields,
            question=self._question(index, item),
        )

    def _question(self, index: int, item: Item) -> str:
        fields = {**item.row.fields, ROW_NUMBER: index}
        values = [fields.get(name) for name in self.benchmark.question_id]
        if not values or None in values:
            return ""
        return " ".join(map(str, [self.part, *values])).strip()

    def _solved(self, shots: Sequence[Item]) -> Iterator[str]:
        form = self.format
        for number, shot in enumerate(shots, 1):
            yield self._fill(form.shot_context or form.context, shot, number)
            yield form.delimiter
            if form.choices and not form.target:
                yield self._options(shot, number)[shot.gold[0]]
            elif form.choices or shot.references:
                yield self._fill(form.target, shot, number)
            else:
                shot.row.fail("a shot needs an answer, and this has none: get files with answers")
            yield form.shot_delimiter

    def _options(self, item: Item, number: int) -> tuple[str, ...]:
        choices = self.format.choices
        if choices == LETTERS:
            return tuple(string.ascii_uppercase[: item.letters])
        if choices == TEXTS:
            return item.options
        return tuple(self._fill(choice, item, number) for choice in choices)

    def _fill(self, template: str, item: Item, number: int) -> str:
        """Fills a template with the item's fields; braces in their texts are not interpreted."""
        letters = string.ascii_uppercase
        shown = self.format.option_delimiter.join(
            self.format.option.format(letter=letter, text=text)
            for letter, text in zip(letters, item.options, strict=False)
        )
        texts = dict(item.texts)
        for name, edits in self.format.edits.items():
            for edit in edits:
                texts[name] = EDITS[edit](texts[name])
        fields = {
            **self.words,
            **texts,
            "part": self.part,
            "subject": self.benchmark.part_names.get(self.part, self.part.replace("_", " ")),
            "options": shown,
            "option_texts": item.options,
            "last_letter": letters[item.letters - 1] if item.options else "",
            "stated_answer": item.stated_answer,
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
