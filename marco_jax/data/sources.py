"""Declarations of sources: what they are, and the inputs that their records come from.

A corpus is a list of these. A JSON file states them, checked before anything is read; a directory,
JSONL files and the default corpus are turned into the same declarations (`generated_sources.py`,
`builtin_sources.py`).

    {"sources": [
      {"name": "kk_web", "kind": "text", "language": "kk", "files": "kk/*.jsonl.zst"},
      {"name": "opus", "kind": "parallel", "languages": ["en", "kk"], "files": ["en-kk.tsv.gz"]},
      {"name": "news", "kind": "parallel", "aligned": "news/*.txt"},
      {"name": "c4", "kind": "text", "language": "ne", "tfds": "c4/multilingual:3.1.0",
       "split": "ne"},
      {"name": "he", "kind": "text", "language": "he", "inputs": [
        {"files": "he/books.parquet", "text": "body"}, {"files": "he/news.txt", "joined": true}]},
      {"name": "sft_kk", "kind": "chat", "language": "kk", "files": "chat_kk.jsonl"},
      {"name": "sft_tsv", "kind": "chat", "files": "instructions.tsv"},
      {"name": "dpo", "kind": "preference", "files": "pairs/*.jsonl"},
      {"name": "to_kk", "kind": "prompt", "language": "kk", "files": "prompts_kk.jsonl"},
      {"name": "qa", "kind": "knowledge", "language": "en", "seqio": "my_task", "module": "my.py"}
    ]}

Paths are relative to the JSON file, and may be globs, lists and URLs ("gs://...").
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from marco_jax.data.readers import FORMS
from marco_jax.data.texts import DIALOGUES, KINDS, PARALLEL, SourceInfo
from marco_jax.files import as_path
from marco_jax.languages import get_language

LANGUAGE_NAMES = ("english", "source", "target", "mixed")
_ORIGINS = ("files", "aligned", "tfds", "seqio", "records")


@dataclasses.dataclass(frozen=True)
class Input:
    """Where records come from, and how they are read.

    Attributes:
        files: paths or globs.
        aligned: paths or globs of texts whose n-th lines mean the same; a file's name begins with
            its language.
        tfds: name of a TFDS dataset (a builder's, with its config), prepared in `data_dir`.
        seqio: name of a SeqIO task or mixture; `module` (a file or a module) registers it, and
            `cached` reads SeqIO's own offline cache of it. Ids of its vocabulary become text again.
        records: the records themselves.
        split: of TFDS and SeqIO.
        format: of the files, where names do not tell: a key of readers.FORMS.
        columns: of TSV files; by default source and target, of conversations prompt and response,
            of preferences prompt, chosen and rejected.
        text, id: fields of a record that hold the text, and a name for it ("" where there is none).
            "q+a" joins two fields by a newline; records that lack the second are left out.
        language: of records that have no "language" of their own.
        languages: of pairs: that of "source" and that of "target"; where they are left out, a
            record has them as "source_language" and "target_language".
        joined: whether neighbouring texts are joined to documents, a line each.
        english: a file that has the English text of the n-th line, or of the record with the same
            id; that text decides what is held out. A record's own "english" comes first.
        where: values that a record's fields must have; records without them are passed over.
        repeated: whether another input reads the same records, and reports those that are bad.
    """

    files: tuple[str, ...] = ()
    aligned: tuple[str, ...] = ()
    tfds: str = ""
    seqio: str = ""
    records: tuple[Mapping[str, Any], ...] = ()
    module: str = ""
    cached: bool = False
    data_dir: str = ""
    split: str = "train"
    format: str = ""
    columns: tuple[str, ...] = ()
    text: str = "text"
    id: str = "id"
    language: str = ""
    languages: tuple[str, ...] = ()
    joined: bool = False
    english: str = ""
    where: Mapping[str, str] = dataclasses.field(default_factory=dict)
    repeated: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """A declared source.

    Attributes:
        name: in mixtures, metrics and overrides.
        kind: one of texts.KINDS.
        inputs: where its records come from, in order.
        language: of its documents; where it is left out, a record's own "language" is its language.
            A source of texts has one.
        held_out: share of the texts that is held out; at most `held_out_documents` of each input
            are evaluated on.
        language_names: the language in which templates name languages: English, the source or the
            target language, or ("mixed") one of the three for each document.
        both_directions: whether pairs are read both ways.
        partners: languages that each line of aligned texts is paired with.
        streamed: tokenise while training instead of before: training starts at once, but a restart
            reads again what had been read, and the size of the source stays unknown.
    """

    name: str
    kind: str
    inputs: tuple[Input, ...]
    language: str = ""
    held_out: float = 0.01
    held_out_documents: int = 500
    language_names: str = "english"
    both_directions: bool = True
    partners: int = 2
    streamed: bool = False

    @property
    def info(self) -> SourceInfo:
        """The source as mixtures see it."""
        return SourceInfo(self.name, self.kind, self.language, self.streamed)


# Fields of an input that no JSON entry has.
_GENERATED = ("records", "where", "repeated")
# Fields of a JSON entry; those of its only input may stand in the entry itself.
_SOURCE_FIELDS = {field.name: field for field in dataclasses.fields(Source)}
_INPUT_FIELDS = {f.name: f for f in dataclasses.fields(Input) if f.name not in _GENERATED}


def read_sources(path: str) -> list[Source]:
    """The sources that a JSON file declares.

    Raises:
        ValueError: the file, the entry and the field that cannot be used, and the remedy.
    """
    file = as_path(path)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["sources"]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: it is not valid JSON: {error.msg}") from None
    except (KeyError, TypeError):
        raise ValueError(f'{path}: it has no list "sources"') from None
    sources = [_source(entry, f"{path}, source {n}") for n, entry in enumerate(entries, 1)]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"{path}: two sources are called {twice!r}: give each a name of its own")
    return [_resolve(source, file.parent) for source in sources]


def _source(entry: Any, place: str) -> Source:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f'{place}: it is not an object with a "name"')
    place = f"{place} ({entry['name']})"
    _check_known(entry, {**_SOURCE_FIELDS, **_INPUT_FIELDS}, place)
    if "kind" not in entry:
        raise ValueError(f"{place}: it has no kind; choose one of {', '.join(KINDS)}")
    shared = ("language",)
    own = {k: v for k, v in entry.items() if k in _INPUT_FIELDS and k not in shared}
    listed = entry.get("inputs", [own])
    if "inputs" in entry and own:
        raise ValueError(f"{place}: it has inputs and {', '.join(own)}: put those into the inputs")
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{place}: inputs is not a list of objects")
    inputs = []
    for values in listed:
        if not isinstance(values, dict):
            raise ValueError(f"{place}: inputs is not a list of objects")
        _check_known(values, _INPUT_FIELDS, place)
        inputs.append(Input(**_typed(values, _INPUT_FIELDS, place)))
    rest = {k: v for k, v in entry.items() if k in _SOURCE_FIELDS and k != "inputs"}
    source = Source(**_typed(rest, _SOURCE_FIELDS, place), inputs=tuple(inputs))
    try:
        _check(source)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return source


def _check_known(entry: Mapping[str, Any], fields: Mapping[str, Any], place: str) -> None:
    for name in entry:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
            raise ValueError(f"{place}: there is no field {name!r}; {hint}")


def _typed(
    entry: Mapping[str, Any], fields: Mapping[str, dataclasses.Field], place: str
) -> dict[str, Any]:
    """The values of an entry, each of its field's type."""
    values: dict[str, Any] = {}
    for name, value in entry.items():
        default = fields[name].default
        if isinstance(default, tuple):
            value = (value,) if isinstance(value, str) else value
            if not (isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)):
                raise ValueError(f"{place}: {name} is neither a text nor a list of texts")
            value = tuple(value)
        elif default is not dataclasses.MISSING and not isinstance(
            value, (int, float) if isinstance(default, float) else type(default)
        ):
            raise ValueError(
                f"{place}: {name} is {value!r}, which is not of type {type(default).__name__}"
            )
        values[name] = value
    return values


def _check(source: Source) -> None:
    if source.kind not in KINDS:
        raise ValueError(f"kind is {source.kind!r}; choose one of {', '.join(KINDS)}")
    for part in source.inputs:
        _check_input(source, part)
    if source.kind != PARALLEL and source.kind not in DIALOGUES and not source.language:
        raise ValueError('it has no "language"')
    if source.streamed and source.kind in DIALOGUES:
        raise ValueError(
            f"it is of kind {source.kind}, which is read before training: leave out streamed"
        )
    if source.language:
        get_language(source.language)
    if source.language_names not in LANGUAGE_NAMES:
        raise ValueError(
            f"language_names is {source.language_names!r}, not one of {LANGUAGE_NAMES}"
        )
    if not 0 <= source.held_out < 1:
        raise ValueError(f"held_out is {source.held_out}: write a share of the texts, such as 0.01")


def _check_input(source: Source, part: Input) -> None:
    origins = [name for name in _ORIGINS if getattr(part, name)]
    if len(origins) != 1:
        raise ValueError(f"it has {origins or 'no data'}: set one of {', '.join(_ORIGINS[:-1])}")
    if source.kind == PARALLEL:
        if not part.aligned and (len(part.languages) != 2 or source.language):
            raise ValueError('it is parallel: set "languages" to two codes')
    elif part.aligned:
        raise ValueError("aligned texts make pairs: set kind to parallel")
    for code in part.languages:
        get_language(code)
    if part.format and part.format not in FORMS:
        raise ValueError(f"format is {part.format!r}; choose one of {', '.join(FORMS)}")


def _resolve(source: Source, base: pathlib.Path) -> Source:
    """The same source with its paths made absolute."""

    def absolute(path: str) -> str:
        return path if "://" in path else str(base.absolute() / path)

    inputs = [
        dataclasses.replace(
            part,
            files=tuple(map(absolute, part.files)),
            aligned=tuple(map(absolute, part.aligned)),
            english=part.english and absolute(part.english),
            data_dir=part.data_dir and absolute(part.data_dir),
            module=absolute(part.module) if part.module.endswith(".py") else part.module,
        )
        for part in source.inputs
    ]
    return dataclasses.replace(source, inputs=tuple(inputs))
