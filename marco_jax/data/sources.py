"""Declarations of sources: one entry of a JSON file a source, checked before anything is read.

    {"sources": [
      {"name": "kk_web", "kind": "text", "language": "kk", "files": "kk/*.jsonl.zst"},
      {"name": "opus", "kind": "parallel", "languages": ["en", "kk"], "files": ["en-kk.tsv.gz"]},
      {"name": "news", "kind": "parallel", "aligned": "news/*.txt"},
      {"name": "c4", "kind": "text", "language": "ne", "tfds": "c4/multilingual:3.1.0",
       "split": "ne"},
      {"name": "sft_kk", "kind": "chat", "language": "kk", "files": "chat_kk.jsonl"},
      {"name": "sft_tsv", "kind": "chat", "files": "instructions.tsv"},
      {"name": "dpo", "kind": "preference", "files": "pairs/*.jsonl"},
      {"name": "qa", "kind": "knowledge", "language": "en", "seqio": "my_task", "module": "my.py"}
    ]}

Paths are relative to the JSON file, and may be globs, lists and URLs ("gs://...").
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import pathlib
from typing import Any

from marco_jax.data.corpus import CHAT, KINDS, PARALLEL, PREFERENCE, SourceInfo
from marco_jax.data.readers import FORMS
from marco_jax.languages import get_language

LANGUAGE_NAMES = ("english", "source", "target", "mixed")
_ORIGINS = ("files", "aligned", "tfds", "seqio")


@dataclasses.dataclass(frozen=True)
class Source:
    """A declared source.

    Attributes:
        name: in mixtures, metrics and overrides.
        kind: one of corpus.KINDS.
        language: of a text, knowledge or synthetic source. Of conversations and preferences too;
            where it is left out, a record's own "language" is its language.
        languages: of a parallel source: that of "source" and that of "target".
        files: paths or globs.
        aligned: paths or globs of texts whose n-th lines mean the same; a file's name begins with
            its language.
        tfds: name of a TFDS dataset (a builder's, with its config), prepared in `data_dir`.
        seqio: name of a SeqIO task or mixture; `module` (a file or a module) registers it, and
            `cached` reads SeqIO's own offline cache of it.
        split: of TFDS and SeqIO.
        format: of the files, where names do not tell: a key of readers.FORMS.
        columns: of TSV files; by default source and target, of conversations prompt and response,
            of preferences prompt, chosen and rejected.
        text, id: fields of a record that hold the text and its key ("" where there is none).
        held_out: share of the keys that is held out; at most `held_out_documents` are evaluated on.
        language_names: the language in which templates name languages: English, the source or the
            target language, or ("mixed") one of the three for each document.
        both_directions: whether pairs are read both ways.
        partners: languages that each line of aligned texts is paired with.
        streamed: tokenise while training instead of before: training starts at once, but a restart
            reads again what had been read, and the size of the source stays unknown.
    """

    name: str
    kind: str
    language: str = ""
    languages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    aligned: tuple[str, ...] = ()
    tfds: str = ""
    seqio: str = ""
    module: str = ""
    cached: bool = False
    data_dir: str = ""
    split: str = "train"
    format: str = ""
    columns: tuple[str, ...] = ()
    text: str = "text"
    id: str = "id"
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


def read_sources(path: str) -> list[Source]:
    """The sources that a JSON file declares.

    Raises:
        ValueError: the file, the entry and the field that cannot be used, and the remedy.
    """
    file = pathlib.Path(path)
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
    fields = {field.name: field for field in dataclasses.fields(Source)}
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
            raise ValueError(f"{place}: there is no field {name!r}; {hint}")
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
    if "kind" not in values:
        raise ValueError(f"{place}: it has no kind; choose one of {', '.join(KINDS)}")
    source = Source(**values)
    try:
        _check(source)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return source


def _check(source: Source) -> None:
    if source.kind not in KINDS:
        raise ValueError(f"kind is {source.kind!r}; choose one of {', '.join(KINDS)}")
    origins = [name for name in _ORIGINS if getattr(source, name)]
    if len(origins) != 1:
        raise ValueError(f"it has {origins or 'no data'}: set one of {', '.join(_ORIGINS)}")
    if source.kind == PARALLEL:
        if not source.aligned and (len(source.languages) != 2 or source.language):
            raise ValueError('it is parallel: set "languages" to two codes')
    elif source.kind not in (CHAT, PREFERENCE) and not source.language:
        raise ValueError('it has no "language"')
    if source.streamed and source.kind in (CHAT, PREFERENCE):
        raise ValueError(
            f"it is of kind {source.kind}, which is tokenised before training: leave out streamed"
        )
    if source.aligned and source.kind != PARALLEL:
        raise ValueError("aligned texts make pairs: set kind to parallel")
    for code in filter(None, (source.language, *source.languages)):
        get_language(code)
    if source.format and source.format not in FORMS:
        raise ValueError(f"format is {source.format!r}; choose one of {', '.join(FORMS)}")
    if source.language_names not in LANGUAGE_NAMES:
        raise ValueError(
            f"language_names is {source.language_names!r}, not one of {LANGUAGE_NAMES}"
        )
    if not 0 <= source.held_out < 1:
        raise ValueError(f"held_out is {source.held_out}: write a share of the keys, such as 0.01")


def _resolve(source: Source, base: pathlib.Path) -> Source:
    """The same source with its paths made absolute."""

    def absolute(path: str) -> str:
        return path if "://" in path else str(base.absolute() / path)

    module = source.module
    return dataclasses.replace(
        source,
        files=tuple(map(absolute, source.files)),
        aligned=tuple(map(absolute, source.aligned)),
        data_dir=source.data_dir and absolute(source.data_dir),
        module=absolute(module) if module.endswith(".py") else module,
    )
