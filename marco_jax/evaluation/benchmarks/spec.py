"""What a benchmark is, as data: where its rows lie, what they mean, how a prompt is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

# Choices of a format that are not templates: the letters of the options, or the options' texts.
LETTERS = "letters"
TEXTS = "texts"

Sampler = Literal["random", "first_n", "by_content", "shuffled_42"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A place where the rows of a split may lie.

    Attributes:
        path: below the benchmark's folder; may hold {language}, {code} (the files' own code of
            the language), {part}, {source} and {target} (the files' codes of a pair's languages),
            and *.
        target_path: the file with the other side of a translation pair; rows are joined by `id`.
        form: of the file, where its name does not say it (`data.benchmark_files.FORMS`).
        columns: names for files without a header line.
        header: a cell that tells a header line from a row, where some copies have one.
        where: rows are kept whose field equals the value; values may hold the placeholders. A
            value that ends in * stands for all that start so.
        split: of a TFDS dataset.
    """

    path: str
    target_path: str = ""
    form: str = ""
    columns: tuple[str, ...] = ()
    header: str = ""
    where: Mapping[str, str] = dataclasses.field(default_factory=dict)
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """A text field of an item.

    Attributes:
        names: columns that may hold it, in the layouts that exist; the first one there counts. A
            dot goes into a nested field.
        edits: names of `items.EDITS`, applied in order. "drop_word:NAME" takes as many characters
            off the front as the language's word NAME has, and one more.
        may_be_empty: whether the empty text, or none at all, is in order.
        skips_blank: whether a row without it is left out instead of being a fault.
    """

    names: tuple[str, ...]
    edits: tuple[str, ...] = ()
    may_be_empty: bool = False
    skips_blank: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a question: one list column, or a column each.

    Attributes:
        names: alternatives, each the name of a list column or a tuple of columns.
        edits: as in Text, applied to each.
    """

    names: tuple[str | tuple[str, ...], ...]
    edits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Gold:
    """Which option is right.

    Attributes:
        names: columns that may hold it.
        first: the number of the first option, where answers are numbers.
        words: names of the options in order, where answers are words.
        labels: column of the options' own labels ("A", "1", ..), where answers are such labels.
        several: whether an answer may name more than one option, such as "ACD".
    """

    names: tuple[str, ...]
    first: int = 0
    words: tuple[str, ...] = ()
    labels: str = ""
    several: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """How items become prompts. Templates are str.format templates over an item's fields.

    Fields are the benchmark's texts, the words of the language, {word} (the one that the item
    chooses), {part}, {subject}, {reference}, {options} (the rendered options), {last_letter}, and
    {number} (1 for the first shot).

    Attributes:
        context: template of the question.
        choices: LETTERS, TEXTS, or a template a choice; empty where the answer is generated.
        target: template of a shot's answer, where it is generated.
        delimiter: between a context and its answer; part of what is scored.
        shot_delimiter: after a shot.
        description: template of what stands before everything; it ends as it ends.
        shot_context: template of a shot's question, where it differs.
        zero_shot_context: template of the question where there are no shots, where it differs.
        option: template of a rendered option over {letter} and {text}.
        option_delimiter: between rendered options.
        sampler: how shots are drawn from the pool.
        up_to: whether a pool with fewer examples than shots is in order.
        excludes_item: whether the item never is a shot of its own, which moves a random
            generator on by one draw more; None: where it comes from the split of the pool.
            lm-evaluation-harness compares the names of its test and few-shot splits, and so
            excludes where neither has a name, but not where the pool becomes the test split by
            default.
        pool: splits that shots come from, the first that has files; by default the benchmark's.
        metrics: names of the figures, the headline first.
        shots: solved examples unless the caller says otherwise; by default the benchmark's.
        stop: generation ends before these; templates over the language's words.
        max_new_tokens: of a generated answer.
        span_rules: a name of `answers.SPAN_RULES`, where answers are spans.
    """

    context: str
    choices: str | tuple[str, ...] = ""
    target: str = ""
    delimiter: str = " "
    shot_delimiter: str = "\n\n"
    description: str = ""
    shot_context: str = ""
    zero_shot_context: str = ""
    option: str = "{letter}. {text}"
    option_delimiter: str = "\n"
    sampler: Sampler = "random"
    up_to: bool = False
    excludes_item: bool | None = None
    pool: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    shots: int | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 256
    span_rules: str = ""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: of the task.
        folder: below the data directory; the directory itself may be the folder, too.
        about: a line for people, with the source of the files' layout.
        languages: codes it exists in; for translation those that pairs are made of.
        sources: by split, places to look at in order.
        splits: splits to ask about, the first that has files.
        formats: by name, the default first.
        texts: by field name.
        texts_in: the same for languages whose texts are treated otherwise.
        options: the options, for a choice between texts of the item itself.
        gold: which choice is right, one a layout; the first that the row has counts.
        references: columns that may hold the right answers of a generation task: a list or one.
        codes: the files' own language codes where they differ, by code.
        words: of a language, for templates.
        word_by: the text that names the {word} of an item.
        parts: subjects, scored as tasks of their own and averaged by size; by language where they
            differ ("" for all other languages).
        part_names: how a part is written in {subject}; by default its name with spaces.
        pairs: whether languages are pairs: "any" takes en-kk, "from_en" and "to_en" take the
            other language, "context" takes en-de (context and question) and de for de-de.
        open_codes: whether the files' own codes of other languages are taken, too.
        shots: of the paper (Table 4) where it has the benchmark, else of its authors.
        paper_split: the split of Table 4 where it is not the first of `splits`.
    """

    name: str
    folder: str
    about: str
    languages: tuple[str, ...]
    sources: Mapping[str, tuple[Source, ...]]
    splits: tuple[str, ...]
    formats: Mapping[str, Format]
    texts: Mapping[str, Text]
    texts_in: Mapping[str, Mapping[str, Text]] = dataclasses.field(default_factory=dict)
    options: Options | None = None
    gold: tuple[Gold, ...] = ()
    references: tuple[str, ...] = ()
    codes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    words: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    part_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    word_by: str = ""
    pairs: Literal["", "any", "from_en", "to_en", "context"] = ""
    open_codes: bool = False
    shots: int = 0
    paper_split: str = ""

    def parts_of(self, language: str) -> tuple[str, ...]:
        """The parts of a language; one empty name where the benchmark has none."""
        return self.parts.get(language, self.parts.get("", ("",)))


Sources = dict[str, tuple[Source, ...]]

SPLITS = {name: name for name in ("train", "validation", "test")}


def hugging_face(
    config: str = "",
    splits: Mapping[str, str] = SPLITS,
    where: Mapping[str, str] | None = None,
) -> Sources:
    """Sources of a local Hugging Face dataset folder, by split.

    Hub snapshots keep Parquet files as CONFIG/SPLIT-*.parquet (converted ones as
    CONFIG/SPLIT/*.parquet), `save_to_disk` keeps Arrow files in SPLIT/.

    Args:
        config: of the dataset, with placeholders; "" for one without.
        splits: our names of the splits to theirs.
        where: as in Source.
    """
    prefix = f"{config}/" if config else ""
    return {
        split: tuple(
            Source(f"{prefix}{path}", where=where or {})
            for path in (
                f"{name}-*.parquet",
                f"{name}/*.parquet",
                f"data/{name}-*.parquet",
                f"{name}/*.arrow",
                f"{name}.jsonl",
            )
        )
        for split, name in splits.items()
    }


def merged(*tables: Mapping[str, tuple[Source, ...]]) -> Sources:
    """Sources of several layouts, those of the first looked at first."""
    splits = dict.fromkeys(split for table in tables for split in table)
    return {
        split: tuple(source for table in tables for source in table.get(split, ()))
        for split in splits
    }
