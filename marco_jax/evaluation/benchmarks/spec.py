"""Declarations of benchmarks: files, fields of their rows, and prompt formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

# Values of Format.choices that are not templates: the options' letters, or the options' texts.
LETTERS = "letters"
TEXTS = "texts"

# In Benchmark.question_id: the number of the row in its file.
ROW_NUMBER = "#"

Sampler = Literal["random", "first_n", "by_content", "shuffled_42"]


@dataclasses.dataclass(frozen=True)
class RowSource:
    """Files that may hold the rows of a split.

    Attributes:
        path: path below the benchmark's folder; may hold {language}, {code} (the files' own code
            of the language), {config} (the same with _ for -), {part}, {source} and {target} (the
            files' codes of a pair's languages), and *.
        target_path: the file with the other side of a translation pair; rows are joined by `id`.
        form: a key of `row_files.FORMS`, if the file's suffix is not its form.
        quotes: what quotes mean in a TSV file: "" if they are part of the text, "csv" if they
            enclose fields as in CSV, "either" if published copies differ and the file's content
            decides.
        columns: column names for files without a header line.
        header: a cell that identifies a header line, if only some versions of the file have one.
        where: keeps only rows whose fields have these values, which may hold placeholders, also
            {source_639} and {source_15924} (the language and the script of a code such as
            kaz_Cyrl; for the target file, the target's); a value that ends in * is a prefix.
        split: split of a TFDS dataset.
    """

    path: str
    target_path: str = ""
    form: str = ""
    quotes: Literal["", "csv", "either"] = ""
    columns: tuple[str, ...] = ()
    header: str = ""
    where: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """A text field of an item.

    Attributes:
        names: columns that may hold it in the existing layouts; the first one present is used. A
            dot addresses a nested field; {language} is the language code.
        edits: keys of `items.EDITS`, applied in order. "drop_word:NAME" removes as many characters
            from the start as the language's word NAME has, and one more.
        may_be_empty: whether the text may be empty or missing.
        skips_blank: whether a row without it is skipped instead of raising an error.
    """

    names: tuple[str, ...]
    edits: tuple[str, ...] = ()
    may_be_empty: bool = False
    skips_blank: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a question: one list column, or one column per option.

    Attributes:
        names: alternatives, each the name of a list column or a tuple of columns.
        edits: as in Text, applied to each option.
        up_to: whether the last columns may be empty, for questions with fewer options.
        joined: by language, the number of options of a question whose list has one text, which
            holds them all.
    """

    names: tuple[str | tuple[str, ...], ...]
    edits: tuple[str, ...] = ()
    up_to: bool = False
    joined: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class Gold:
    """Where a row states which option is right.

    Attributes:
        names: columns that may hold it.
        first: the number of the first option, if answers are numbers.
        words: names of the options in order, if answers are words.
        aliases: other words for them that some files have.
        labels: column of the options' labels ("A", "1", ..), if answers are such labels.
        several: whether an answer may name more than one option, such as "ACD" or ["A", "C"];
            punctuation around the letters is ignored.
        leaves_out: whether a row whose answer is empty or none of the options is left out (and
            counted, see `items.LeftOut`) instead of raising an error.
    """

    names: tuple[str, ...]
    first: int = 0
    words: tuple[str, ...] = ()
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    labels: str = ""
    several: bool = False
    leaves_out: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """How items become prompts. Templates are str.format templates over an item's fields.

    Fields are the benchmark's texts, the words of the language, {word} (selected by the item, see
    Benchmark.word_by), {part}, {subject}, {reference}, {options} (the rendered options),
    {option_texts} (by number from 0, as {option_texts[0]}), {last_letter}, {stated_answer} (the
    answer as the file states it), and {number} (1 for the first shot).

    Attributes:
        context: template of the question; empty if the choices hold it.
        choices: LETTERS, TEXTS, or one template per choice; empty if the answer is generated.
        target: template of a shot's answer; by default the right choice.
        delimiter: text between a context and its answer; scored as part of the answer.
        shot_delimiter: text after a shot.
        description: template of the text before the shots; no delimiter is added after it.
        shot_context: template of a shot's question, if it differs.
        zero_shot_context: template of the question without shots, if it differs.
        edits: by text field, keys of `items.EDITS` applied after the field's own.
        option: template of a rendered option over {letter} and {text}.
        option_delimiter: text between rendered options.
        sampler: how shots are drawn from the pool.
        up_to: whether the pool may have fewer examples than shots.
        excludes_item: whether an item is excluded from its own shots, for which one more example
            is drawn; None: if the pool is the item's split. lm-evaluation-harness compares the
            names of its test and few-shot splits: it excludes the item if neither has a name, but
            not if the pool is the test split by default.
        pool: splits to take shots from, the first that has files; by default train, validation
            and test.
        metrics: names of the metrics, the main one first.
        shots: default number of shots; None for the benchmark's.
        stop: strings that generation ends before; templates over the language's words.
        max_new_tokens: maximum length of a generated answer.
        span_rules: a key of `answers.SPAN_RULES`, if answers are spans.
    """

    context: str = ""
    choices: str | tuple[str, ...] = ""
    target: str = ""
    delimiter: str = " "
    shot_delimiter: str = "\n\n"
    description: str = ""
    shot_context: str = ""
    zero_shot_context: str = ""
    edits: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, hash=False)
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
    """A benchmark: its files, fields and formats.

    Attributes:
        about: one line of description, with the source of the files' layout.
        languages: language codes; for translation the languages that pairs are made of.
        sources: by split, alternatives in order of preference.
        formats: formats by name, the default first.
        folder: folder below the data directory, by default the name; the data directory may also
            be the folder.
        splits: splits to evaluate, the first that has files.
        texts_in: by language, replaces `texts`.
        options: the options, if items choose between their own texts.
        gold: where the right choice is stated, one per layout; the first present is used.
        references: columns that may hold the reference answers of a generation task, one or a list.
        codes: the files' language codes where they differ from ours, by our code.
        words: words for templates, by language.
        word_by: the text field whose value selects the {word} of an item.
        parts: subjects, scored separately and averaged by size; by language if they differ ("" for
            all other languages).
        part_names: names of parts in {subject}; by default the part's name with spaces. Its keys
            are the parts if `parts` is empty.
        pairs: whether languages are pairs: "any" takes en-kk, "from_en" and "to_en" take the
            other language, "context" takes en-de (context and question) and de for de-de.
        open_codes: whether the files' codes of further languages are accepted, too.
        shots: the paper's number of shots (Table 4) if it has the benchmark, else its authors'.
        paper_split: the split of Table 4 if it is not the first of `splits`.
        question_id: columns (or ROW_NUMBER) that together identify a question in all languages,
            where languages have translations of the same questions.
    """

    name: str
    about: str
    languages: tuple[str, ...]
    sources: Mapping[str, tuple[RowSource, ...]]
    formats: Mapping[str, Format]
    texts: Mapping[str, Text]
    folder: str = ""
    splits: tuple[str, ...] = ("test",)
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
    question_id: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder or self.name)

    def default_shots(self, form: Format) -> int:
        """Default number of shots in a prompt of a format."""
        return self.shots if form.shots is None else form.shots

    def parts_of(self, language: str) -> tuple[str, ...]:
        """The parts of a language; one empty name if the benchmark has none."""
        every = self.parts.get("", tuple(self.part_names) or ("",))
        return self.parts.get(language, every)


Sources = dict[str, tuple[RowSource, ...]]

SPLITS = "train validation test"


def local_files(
    *paths: str, splits: str = SPLITS, target_path: str = "", **declared: Any
) -> Sources:
    """Sources by split, from paths in which {split} is the files' name of the split.

    Args:
        *paths: alternatives in order of preference, as in RowSource.
        splits: our names of the splits; "validation=dev" where the files have another name.
        target_path: as in RowSource.
        **declared: further fields of each RowSource.
    """
    return {
        split: tuple(
            RowSource(
                path.replace("{split}", name), target_path.replace("{split}", name), **declared
            )
            for path in paths
        )
        for split, name in _split_names(splits)
    }


def hugging_face(
    config: str = "",
    splits: str = SPLITS,
    where: Mapping[str, str] | None = None,
    target_config: str | None = None,
) -> Sources:
    """Sources of a local Hugging Face dataset folder, by split.

    Hub snapshots keep Parquet files as CONFIG/SPLIT-*.parquet (converted ones as
    CONFIG/SPLIT/*.parquet), `save_to_disk` keeps Arrow files in SPLIT/ (data-*.arrow, before
    datasets 2.0 dataset.arrow; cache-*.arrow beside them are not part of the dataset).

    `config` is the dataset's config, with placeholders, or ""; `splits` are as in `local_files`,
    `where` as in RowSource. `target_config` is the config with the other side of a translation
    pair, whose rows have the same ids.
    """
    paths = (
        "{split}-*.parquet",
        "{split}/*.parquet",
        "{split}.parquet",
        "data/{split}-*.parquet",
        "{split}/data-*.arrow",
        "{split}/dataset.arrow",
        "{split}.jsonl",
    )
    sides = (config, target_config or "")
    sources = [[f"{side}/{path}".lstrip("/") for path in paths] for side in sides]
    return merged(
        *(
            local_files(
                path,
                splits=splits,
                target_path="" if target_config is None else target,
                where=where or {},
            )
            for path, target in zip(*sources, strict=True)
        )
    )


def tfds_folder(path: str, splits: str = SPLITS, where: Mapping[str, str] | None = None) -> Sources:
    """Sources of a prepared TFDS dataset, by split; arguments as in `hugging_face`."""
    return {
        split: (RowSource(path, form="tfds", split=name, where=where or {}),)
        for split, name in _split_names(splits)
    }


def _split_names(splits: str) -> list[tuple[str, str]]:
    names = [name.partition("=") for name in splits.split()]
    return [(ours, theirs or ours) for ours, _, theirs in names]


def merged(*tables: Mapping[str, tuple[RowSource, ...]]) -> Sources:
    """Merges the sources of several layouts; those of the first table are preferred."""
    splits = dict.fromkeys(split for table in tables for split in table)
    return {
        split: tuple(source for table in tables for source in table.get(split, ()))
        for split in splits
    }
