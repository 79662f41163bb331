"""Corpora from files: a directory of them, or JSONL.

A directory may hold, at any depth:

    mono/xx.txt          one text a line; files of one folder with equal line counts that include
                         en.txt are taken as aligned, line n = line n
    parallel/xx-yy.tsv   two columns, xx TAB yy
    docs/xx.jsonl        {"id", "text"} a line: documents; an id is one document in all languages
    qa/xx.jsonl          {"q", "a"} a line: knowledge
    *.jsonl              elsewhere: the JSONL form below

JSONL (.gz too) holds texts, {"text", "language"} with optional "source" and "id", and pairs,
{"source_language", "target_language", "source", "target"} with optional "id".
"""

from __future__ import annotations

import collections
import glob
import logging
import pathlib
from collections.abc import Iterator

from marco_jax.data.corpus import KNOWLEDGE, PARALLEL, SYNTHETIC, Corpus, Message, Pair
from marco_jax.data.memory_corpus import Builder
from marco_jax.data.readers import Record, read_records
from marco_jax.languages import LANGUAGES, get_language

# Folders that are input for curation, not for training.
SKIPPED = ("dirty_web_constructed",)
# File names that stand for one of the 29 languages.
ALIASES = {"zh-hant": "zh", "zh-hans": "zh", "zh_hans": "zh", "zh_hant": "zh", "pt_br": "pt"}

JSONL = (".jsonl", ".jsonl.gz")

_log = logging.getLogger(__name__)


def load_files(data: str, seed: int) -> Corpus:
    """Reads a directory, or JSONL files given by comma-separated paths or globs.

    Raises:
        FileNotFoundError: nothing there, or nothing in one of the 29 languages.
        ValueError: a line that cannot be read; the message names file and line.
    """
    builder = Builder(data, seed)
    if pathlib.Path(data).is_dir():
        _read_directory(pathlib.Path(data), builder)
    else:
        for file in _expand(data):
            _read_jsonl(file, builder)
    corpus = builder.build()
    if not corpus.sources():
        raise FileNotFoundError(
            f"data {data!r} holds no training text in the 29 languages: see files_corpus.py "
            "for the layouts that are read"
        )
    return corpus


def _expand(data: str) -> list[pathlib.Path]:
    files = []
    for pattern in data.split(","):
        found = sorted(glob.glob(pattern.strip(), recursive=True))
        if not found:
            raise FileNotFoundError(f"data: no file matches {pattern.strip()!r}")
        files += [pathlib.Path(path) for path in found]
    return files


def _read_directory(root: pathlib.Path, builder: Builder) -> None:
    skipped = 0
    folders: dict[pathlib.Path, list[pathlib.Path]] = collections.defaultdict(list)
    for file in sorted(root.rglob("*")):
        if file.is_file() and not set(SKIPPED) & set(file.relative_to(root).parts):
            folders[file.parent].append(file)
    for folder, files in folders.items():
        known = {file: _languages(file) for file in files}
        if folder.name in ("mono", "parallel", "docs", "qa"):
            skipped += sum(None in codes for codes in known.values())
        readable = {file: codes for file, codes in known.items() if None not in codes}
        if folder.name == "mono":
            _read_mono({f: c[0] for f, c in readable.items() if f.suffix == ".txt"}, builder)
        elif folder.name == "parallel":
            for file, codes in readable.items():
                if file.suffix == ".tsv" and len(codes) == 2 and codes[0] != codes[1]:
                    builder.add_pairs(_read_pairs(file, *codes))
        elif folder.name in ("docs", "qa"):
            for file, codes in readable.items():
                if file.name.endswith(JSONL):
                    _read_documents(file, codes[0], folder.name == "qa", builder)
        else:
            for file in files:
                if file.name.endswith(JSONL):
                    _read_jsonl(file, builder)
    if skipped:
        _log.info("%s: left out %d files of other languages", root, skipped)


def _languages(file: pathlib.Path) -> list[str | None]:
    """The languages that a file's name gives: "kk", or "en-kk"; None for others."""
    stem = file.name.partition(".")[0].lower()
    parts = [stem] if stem in ALIASES else stem.split("-")
    return [ALIASES.get(part, part if part in LANGUAGES else None) for part in parts]


def _read_mono(files: dict[pathlib.Path, str], builder: Builder) -> None:
    """Files of one folder; aligned ones take the English line as the key of every language."""
    lines = {file: _lines(file) for file in files}
    english = next((lines[file] for file, code in files.items() if code == "en"), [])
    for file, code in files.items():
        aligned = bool(english) and len(lines[file]) == len(english)
        keys = english if aligned else lines[file]
        messages = (Message(key or text, text) for key, text in zip(keys, lines[file], strict=True))
        builder.add_texts(code, messages, joined=True)


def _read_pairs(file: pathlib.Path, source: str, target: str) -> Iterator[Pair]:
    """Pairs of a TSV; the English side is the key, else the first."""
    for number, line in enumerate(_lines(file), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise ValueError(f"{file}:{number} has {len(columns)} columns: write source TAB target")
        key = columns[1] if target == "en" else columns[0]
        yield Pair(key, source, target, *columns)


def _read_documents(file: pathlib.Path, language: str, questions: bool, builder: Builder) -> None:
    messages = []
    for place, row in _rows(file):
        if questions:
            question, answer = _text(row, "q", place), row.get("a")
            if answer:
                messages.append(Message(f"{row.get('id', '')} {question}", f"{question}\n{answer}"))
        else:
            text = _text(row, "text", place)
            messages.append(Message(str(row.get("id") or text), text))
    source = KNOWLEDGE if questions else language
    builder.add_texts(language, messages, source=source, joined=False)


def _read_jsonl(file: pathlib.Path, builder: Builder) -> None:
    texts: dict[tuple[str, str], list[Message]] = collections.defaultdict(list)
    for place, row in _rows(file):
        try:
            if "target" in row:
                sides = [_text(row, name, place) for name in ("source", "target")]
                codes = [
                    get_language(_text(row, name, place)).code
                    for name in ("source_language", "target_language")
                ]
                key = str(row.get("id") or sides[1 if codes[1] == "en" else 0])
                builder.add_pairs([Pair(key, *codes, *sides)])
                continue
            code = get_language(_text(row, "language", place)).code
            source = row.get("source") or code
            if source not in (code, KNOWLEDGE, PARALLEL, SYNTHETIC):
                raise ValueError(
                    f"source {source!r} is not the language, {KNOWLEDGE} or {SYNTHETIC}"
                )
        except ValueError as error:
            raise ValueError(str(error) if place in str(error) else f"{place}: {error}") from None
        text = _text(row, "text", place)
        texts[source, code].append(Message(str(row.get("id") or text), text))
    for (source, code), messages in texts.items():
        builder.add_texts(code, messages, source=source, joined=False)


def _rows(file: pathlib.Path) -> Iterator[tuple[str, Record]]:
    return read_records(str(file), "jsonl")


def _text(row: Record, name: str, place: str) -> str:
    if not isinstance(row.get(name), str):
        raise ValueError(f'{place} has no text under "{name}"')
    return row[name]


def _lines(file: pathlib.Path) -> list[str]:
    return [record["text"] for _, record in read_records(str(file), "lines")]
