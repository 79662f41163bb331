"""Reads items from rows of files: the texts, options and answers that a benchmark declares."""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.evaluation.benchmarks.row_files import Row
from marco_jax.evaluation.benchmarks.spec import Benchmark, Gold, Options, Text

_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Item:
    """A question of a benchmark.

    Attributes:
        row: the record that it was read from.
        texts: texts by field name, after the benchmark's edits.
        options: texts to choose from; empty if the format gives the choices.
        letters: number of options; more than `options` has if one text holds them all.
        stated_answer: the answer as the row states it, as Python prints it.
        gold: indices of the right choices, almost always one; empty for generation.
        references: reference answers of a generation task; empty if the file has none.
    """

    row: Row
    texts: Mapping[str, str]
    options: tuple[str, ...] = ()
    letters: int = 0
    stated_answer: str = ""
    gold: tuple[int, ...] = ()
    references: tuple[str, ...] = ()


class UnusableRow(Exception):
    """A row that the benchmark leaves out; the message is the reason."""


@dataclasses.dataclass
class LeftOut:
    """Rows of a split that were left out for the same reason.

    Attributes:
        part: subject; empty if the benchmark has none.
        split: the split of the rows, which may be the one that shots come from.
        reason: what they lack.
        count: number of rows.
        first: "file:line" of the first.
    """

    part: str
    split: str
    reason: str
    count: int
    first: str


def text_fields(benchmark: Benchmark, language: str) -> dict[str, Text]:
    """The text fields of a benchmark in a language, with its code in their columns' names."""
    return {
        name: dataclasses.replace(
            text, names=tuple(column.replace("{language}", language) for column in text.names)
        )
        for name, text in benchmark.texts_in.get(language, benchmark.texts).items()
    }


def read_item(
    row: Row,
    benchmark: Benchmark,
    language: str,
    fields: Mapping[str, Text],
    *,
    choices: int,
    words: Mapping[str, str],
) -> Item:
    """Reads the item of a row.

    `fields` are the `text_fields` of the benchmark in the language, `choices` is the number of
    choices if the row has no options, `words` are the language's words for templates.

    Raises:
        UnusableRow: the benchmark leaves such rows out.
        DataError: a field is missing or empty, or the answer is not one of the options.
    """
    for name, text in fields.items():
        if text.skips_blank and find(row, text.names) in (None, ""):
            raise UnusableRow(f"{name} is empty")
    texts = {name: read_text(row, text, words) for name, text in fields.items()}
    options: tuple[str, ...] = ()
    letters, stated, gold = choices, "", ()
    if benchmark.options:
        options = read_options(row, benchmark.options, language)
        letters = len(options)
        if letters == 1:
            letters = benchmark.options.joined[language]
    if benchmark.gold:
        stated, gold = read_gold(row, benchmark.gold, letters)
    references = read_references(row, benchmark.references) if benchmark.references else ()
    return Item(row, texts, options, letters, stated, gold, references)


def find(row: Row, names: tuple[str, ...], default: Any = _REQUIRED) -> Any:
    """The value of the first of `names` that the row has; dots address nested fields and lists.

    Raises:
        DataError: the row has none of them, and there is no default.
    """
    for name in names:
        value: Any = row.fields
        for key in name.split("."):
            value = _by_language(value)
            if isinstance(value, list) and all(isinstance(v, Mapping) and key in v for v in value):
                value = [item[key] for item in value]
                continue
            if not isinstance(value, Mapping) or key not in value:
                break
            value = value[key]
        else:
            return value
    if default is not _REQUIRED:
        return default
    wanted = " or ".join(repr(name) for name in names)
    row.fail(f"the field {wanted} is missing: the row has {', '.join(map(repr, row.fields))}")


def _by_language(value: Any) -> Any:
    """Converts TFDS's translations {language: [..], translation: [..]} to texts by language."""
    if isinstance(value, Mapping) and set(value) == {"language", "translation"}:
        languages, texts = value["language"], value["translation"]
        if isinstance(languages, list) and isinstance(texts, list):
            return dict(zip(languages, texts, strict=False))
    return value


def read_text(row: Row, text: Text, words: Mapping[str, str]) -> str:
    """Reads a text field and applies its edits."""
    value = find(row, text.names, None if text.may_be_empty else _REQUIRED)
    if value is None and text.may_be_empty:
        value = ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        row.fail(f"{text.names[0]} is {value!r}: it must be a text")
    if not value.strip() and not text.may_be_empty:
        row.fail(f"{text.names[0]} is empty: it must be a text")
    return _edit(value, text.edits, words)


def _edit(value: str, edits: tuple[str, ...], words: Mapping[str, str]) -> str:
    for edit in edits:
        if edit.startswith("drop_word:"):
            value = value[len(words[edit.removeprefix("drop_word:")]) + 1 :]
        else:
            value = EDITS[edit](value)
    return value


def read_options(row: Row, options: Options, language: str) -> tuple[str, ...]:
    """Reads the options of a question: at least two non-empty texts, or one that holds them all."""
    for name in options.names:
        if isinstance(name, tuple):
            if not all(column in row.fields for column in name):
                continue
            values = [row.fields[column] for column in name]
        else:
            values = find(row, (name,), None)
            if values is None:
                continue
        break
    else:
        shown = " or ".join(
            ", ".join(name) if isinstance(name, tuple) else name for name in options.names
        )
        row.fail(
            f"the options ({shown}) are missing: the row has {', '.join(map(repr, row.fields))}"
        )
    if options.up_to and isinstance(values, list):
        while values and values[-1] in (None, ""):
            values = values[:-1]
    least = 1 if language in options.joined else 2
    if not isinstance(values, list | tuple) or len(values) < least:
        row.fail(f"the options are {values!r}: there must be at least two")
    texts = [str(value) if isinstance(value, int | float) else value for value in values]
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            row.fail(f"option {number} of {len(texts)} is {text!r}: it must be a text")
    return tuple(_edit(text, options.edits, {}) for text in texts)


def read_gold(row: Row, golds: Sequence[Gold], choices: int) -> tuple[str, tuple[int, ...]]:
    """Reads the right choices from the first of `golds` that the row has.

    Returns:
        The answer as the row states it, and the indices of the right choices.

    Raises:
        UnusableRow: as `Gold.leaves_out`.
        DataError: the answer is missing, empty or none of the choices.
    """
    present = [
        gold
        for gold in golds
        if find(row, gold.names, None) is not None
        and (not gold.labels or find(row, (gold.labels,), None) is not None)
    ]
    gold = present[0] if present else golds[0]
    missing = None if gold.leaves_out else _REQUIRED
    value = find(row, tuple(name for each in golds for name in each.names), missing)
    numbers, allowed = _numbers(row, gold, value, choices)
    if not numbers or not all(number is not None and 0 <= number < choices for number in numbers):
        if gold.leaves_out:
            raise UnusableRow(f"{gold.names[0]} is empty or none of the options")
        row.fail(f"{gold.names[0]} is {value!r}: it must be one of {allowed}")
    return "" if value is None else str(value), tuple(numbers)


def _numbers(row: Row, gold: Gold, value: Any, choices: int) -> tuple[list[int | None], str]:
    """The indices that an answer names, None for what is not an option; and what is allowed."""
    if gold.labels:
        labels = [str(label) for label in find(row, (gold.labels,))]
        numbers = [labels.index(str(value))] if str(value) in labels else []
        return numbers, ", ".join(labels)
    letters = f"A to {string.ascii_uppercase[choices - 1]}"
    if gold.several:
        values = value if isinstance(value, list) else [value or ""]
        stated = re.sub(r"[\W_]", "", "".join(map(str, values)))
        return [_number(letter, gold) for letter in dict.fromkeys(stated)], f"letters {letters}"
    last = gold.first + choices - 1
    allowed = ", ".join(gold.words) or f"{gold.first} to {last} or {letters}"
    return [_number(value, gold)], allowed


def _number(value: Any, gold: Gold) -> int | None:
    """The index of an option from a number, a word or a letter; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value - gold.first
    text = str(value).strip()
    text = gold.aliases.get(text, text)
    if text in gold.words:
        return gold.words.index(text)
    if re.fullmatch(r"\d{1,2}", text):
        return int(text) - gold.first
    if len(text) == 1 and text in string.ascii_uppercase:
        return string.ascii_uppercase.index(text)
    return None


def read_references(row: Row, names: tuple[str, ...]) -> tuple[str, ...]:
    """Reads the reference answers of a generation task; empty if the file has none."""
    value = find(row, names)
    values = value if isinstance(value, list) else [value]
    texts = [str(v) if isinstance(v, int | float) else v for v in values if v is not None]
    if not all(isinstance(text, str) for text in texts):
        row.fail(f"{names[0]} is {value!r}: it must hold texts")
    return tuple(text for text in texts if text.strip())


def _detokenize(text: str) -> str:
    """Removes the spaces that PAWS's tokenisation put around punctuation."""
    for spaced, plain in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        text = text.replace(spaced, plain)
    return re.sub(r" (['.,])", r"\1", text)


EDITS = {
    "strip": str.strip,
    "lower_first": lambda text: text[:1].lower() + text[1:],
    "drop_last": lambda text: text[:-1],
    "drop_final_mark": lambda text: re.sub(r"[.,;]\Z", "", text),
    "detokenize": _detokenize,
}
