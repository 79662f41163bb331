"""Declarations made from a directory of corpora, or from JSONL files.

A directory may hold, at any depth:

    mono/xx.txt          one text a line; files of one folder with equal line counts that include
                         en.txt are taken as aligned, line n = line n
    parallel/xx-yy.tsv   two columns, xx TAB yy
    docs/xx.jsonl        {"id", "text"} a line: documents; an id is one document in all languages
    qa/xx.jsonl          {"q", "a"} a line: knowledge
    *.jsonl              elsewhere: the JSONL form below

JSONL (.gz too) holds texts, {"text", "language"} with optional "source" and "id", and pairs,
{"source_language", "target_language", "source", "target"} with optional "id". Such a file is read
once to find its languages, and then by the source of each: of many languages and gigabytes, write
a file for each language and declare them (sources.py).
"""

from __future__ import annotations

import collections
import logging
import pathlib
from collections.abc import Iterable, Mapping

from marco_jax.data.readers import read_records
from marco_jax.data.record_errors import RecordErrors
from marco_jax.data.sources import Input, Source
from marco_jax.data.texts import KNOWLEDGE, PARALLEL, SYNTHETIC, TEXT
from marco_jax.files import as_path, glob_paths, sizes_below
from marco_jax.languages import LANGUAGES, get_language, language_code

# Folders that are input for curation, not for training.
SKIPPED = ("dirty_web_constructed",)
# File names that stand for one of the languages.
ALIASES = {"zh-hant": "zh", "zh-hans": "zh", "zh_hans": "zh", "zh_hant": "zh", "pt_br": "pt"}
# Share of the texts that is held out.
HELD_OUT_SHARE = 0.08

_JSONL = (".jsonl", ".jsonl.gz")

_log = logging.getLogger(__name__)

# Inputs by the name of their source.
_Inputs = dict[str, list[Input]]


def generate_sources(data: str, data_errors: str = "stop") -> list[Source]:
    """Declares a directory, or JSONL files given by comma-separated paths or globs.

    Raises:
        FileNotFoundError: nothing there, or nothing in one of the languages.
        ValueError: a line that cannot be read; the message names file and line.
    """
    inputs: _Inputs = collections.defaultdict(list)
    errors = RecordErrors(data_errors)
    if "," not in data and as_path(data).is_dir():
        _add_directory(as_path(data), inputs, errors)
    else:
        for file in _expand(data):
            _add_jsonl(file, inputs, errors)
    sources = named_sources(inputs)
    if not sources:
        raise FileNotFoundError(
            f"data {data!r} holds no training text in the {len(LANGUAGES)} languages: see "
            "marco_jax/data/generated_sources.py for the layouts that are read"
        )
    return sources


def named_sources(inputs: Mapping[str, Iterable[Input]]) -> list[Source]:
    """A source for each language, then parallel text, knowledge and synthetic documents."""
    order = [*LANGUAGES, PARALLEL, KNOWLEDGE, SYNTHETIC]
    return [
        Source(
            name,
            TEXT if name in LANGUAGES else name,
            tuple(inputs[name]),
            language=name if name in LANGUAGES else "",
            held_out=HELD_OUT_SHARE,
        )
        for name in order
        if name in inputs
    ]


def _expand(data: str) -> list[pathlib.Path]:
    files = []
    for pattern in data.split(","):
        found = glob_paths(pattern.strip())
        if not found:
            raise FileNotFoundError(f"data: no file matches {pattern.strip()!r}")
        files += map(as_path, found)
    return files


def _add_directory(root: pathlib.Path, inputs: _Inputs, errors: RecordErrors) -> None:
    skipped = 0
    folders: dict[pathlib.Path, list[pathlib.Path]] = collections.defaultdict(list)
    for name in sorted(sizes_below(root)):
        file = root / name
        if not set(SKIPPED) & set(file.relative_to(root).parts):
            folders[file.parent].append(file)
    for folder, files in folders.items():
        known = {file: _languages(file) for file in files}
        if folder.name in ("mono", "parallel", "docs", "qa"):
            skipped += sum(None in codes for codes in known.values())
        readable = {file: codes for file, codes in known.items() if None not in codes}
        if folder.name == "mono":
            _add_mono({f: c[0] for f, c in readable.items() if f.suffix == ".txt"}, inputs)
        elif folder.name == "parallel":
            for file, codes in readable.items():
                if file.suffix == ".tsv" and len(codes) == 2 and codes[0] != codes[1]:
                    inputs[PARALLEL].append(Input((str(file),), languages=tuple(codes)))
        elif folder.name == "docs":
            _add_documents(
                {f: c[0] for f, c in readable.items() if f.name.endswith(_JSONL)}, inputs
            )
        elif folder.name == "qa":
            for file, codes in readable.items():
                if file.name.endswith(_JSONL):
                    part = Input((str(file),), text="q+a", language=codes[0])
                    inputs[KNOWLEDGE].append(part)
        else:
            for file in files:
                if file.name.endswith(_JSONL):
                    _add_jsonl(file, inputs, errors)
    if skipped:
        _log.info("%s: left out %d files of other languages", root, skipped)


def _languages(file: pathlib.Path) -> list[str | None]:
    """The languages that a file's name gives: "kk", or "en-kk"; None for others."""
    stem = file.name.partition(".")[0].lower()
    parts = [stem] if stem in ALIASES else stem.split("-")
    codes = [ALIASES.get(part) or language_code(part) for part in parts]
    return [code if code in LANGUAGES else None for code in codes]


def _add_mono(files: Mapping[pathlib.Path, str], inputs: _Inputs) -> None:
    """Files of one folder; for aligned ones the English line decides what is held out."""
    lines = {file: _count_lines(file) for file in files}
    english = next((file for file, code in files.items() if code == "en"), None)
    for file, code in files.items():
        aligned = english is not None and file != english and lines[file] == lines[english]
        inputs[code].append(
            Input(
                (str(file),),
                format="lines",
                joined=True,
                english=str(english) if aligned else "",
            )
        )


def _add_documents(files: Mapping[pathlib.Path, str], inputs: _Inputs) -> None:
    """Documents of one folder; that of the same id in English decides what is held out."""
    english = next((str(file) for file, code in files.items() if code == "en"), "")
    for file, code in files.items():
        own = "" if code == "en" else english
        inputs[code].append(Input((str(file),), format="jsonl", english=own))


def _count_lines(file: pathlib.Path) -> int:
    with file.open("rb") as stream:
        count, last = 0, b"\n"
        while block := stream.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _add_jsonl(file: pathlib.Path, inputs: _Inputs, errors: RecordErrors) -> None:
    """An input for each kind and language of record that a file holds."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], None] = {}
    for place, record in read_records(str(file), "jsonl", (), errors):
        try:
            found[_kind_of(record)] = None
        except ValueError as error:
            errors.report(place, "not a record of JSONL data", str(error))
    for number, (source, where) in enumerate(found):
        inputs[source].append(
            Input(
                (str(file),),
                format="jsonl",
                languages=tuple(
                    language_code(code) for name, code in where if name.endswith("_language")
                ),
                where=dict(where),
                repeated=number > 0,
            )
        )


def _kind_of(record: Mapping[str, object]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The source of a record, and the fields that all records like it have."""
    if "target" in record:
        names = ("source_language", "target_language")
        for name in names:
            _code(record, name)
        return PARALLEL, tuple((name, str(record[name])) for name in names)
    code = _code(record, "language")
    source = record.get("source") or code
    # A source may be the language as the record writes it.
    source = code if source == record["language"] else source
    if source not in (code, KNOWLEDGE, PARALLEL, SYNTHETIC):
        raise ValueError(f"source {source!r} is not the language, {KNOWLEDGE} or {SYNTHETIC}")
    if not isinstance(record.get("text"), str):
        raise ValueError('no text under "text"')
    where = [("language", str(record["language"])), ("source", str(record.get("source") or ""))]
    return str(source), tuple(where)


def _code(record: Mapping[str, object], name: str) -> str:
    code = record.get(name)
    if not isinstance(code, str):
        raise ValueError(f'no text under "{name}"')
    return get_language(language_code(code) or code).code
