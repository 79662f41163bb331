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
import gzip
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

from marco_jax.data.corpus import KNOWLEDGE, PARALLEL, SYNTHETIC, Builder, Corpus, Message, Pair
from marco_jax.languages import LANGUAGES, get_language

# Folders that are input for curation, not for training.
SKIPPED = ("dirty_web_constructed",)
# File names that stand for one of the 29 languages.
ALIASES = {"zh-hant": "zh", "zh-hans": "zh", "zh_hans": "zh", "zh_hant": "zh", "pt_br": "pt"}

JSONL = (".jsonl", ".jsonl.gz")

_log = logging.getLogger(__name__)


def load(data: str, seed: int) -> Corpus:
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
    for number, row in _rows(file):
        if questions:
            question, answer = _text(row, "q", file, number), row.get("a")
            if answer:
                messages.append(Message(f"{row.get('id', '')} {question}", f"{question}\n{answer}"))
        else:
            text = _text(row, "text", file, number)
            messages.append(Message(str(row.get("id") or text), text))
    source = KNOWLEDGE if questions else language
    builder.add_texts(language, messages, source=source, joined=False)


def _read_jsonl(file: pathlib.Path, builder: Builder) -> None:
    texts: dict[tuple[str, str], list[Message]] = collections.defaultdict(list)
    for number, row in _rows(file):
        try:
            if "target" in row:
                sides = [_text(row, name, file, number) for name in ("source", "target")]
                codes = [
                    get_language(_text(row, name, file, number)).code
                    for name in ("source_language", "target_language")
                ]
                key = str(row.get("id") or sides[1 if codes[1] == "en" else 0])
                builder.add_pairs([Pair(key, *codes, *sides)])
                continue
            code = get_language(_text(row, "language", file, number)).code
            source = row.get("source") or code
            if source not in (code, KNOWLEDGE, PARALLEL, SYNTHETIC):
                raise ValueError(
                    f"source {source!r} is not the language, {KNOWLEDGE} or {SYNTHETIC}"
                )
        except ValueError as error:
            place = f"{file}:{number}"
            raise ValueError(str(error) if place in str(error) else f"{place}: {error}") from None
        text = _text(row, "text", file, number)
        texts[source, code].append(Message(str(row.get("id") or text), text))
    for (source, code), messages in texts.items():
        builder.add_texts(code, messages, source=source, joined=False)


def _rows(file: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}:{number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file}:{number} is no JSON object")
        yield number, row


def _text(row: dict[str, Any], name: str, file: pathlib.Path, number: int) -> str:
    if not isinstance(row.get(name), str):
        raise ValueError(f'{file}:{number} has no text under "{name}"')
    return row[name]


def _lines(file: pathlib.Path) -> list[str]:
    """Lines ended by a newline alone: a text may hold other separators."""
    raw = file.read_bytes()
    if file.suffix == ".gz":
        raw = gzip.decompress(raw)
    lines = []
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}:{number} is not UTF-8: {error.reason}") from None
    return lines[:-1] if lines and not lines[-1] else lines
