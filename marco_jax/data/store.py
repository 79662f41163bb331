"""Tokenised documents on disk, with random access: ArrayRecord files and an index of lengths."""

from __future__ import annotations

import bisect
import functools
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

TOKENS, LENGTHS, MANIFEST = "tokens-{:05d}.array_record", "lengths.npy", "manifest.json"
LANGUAGES = "languages.npy"
# Kinds of stores: texts; conversations, of which some tokens are trained on; preferences, of which
# two consecutive documents are a pair. The last two hold a loss mask beside the tokens.
TEXTS, CONVERSATIONS, PREFERENCES = "texts", "conversations", "preferences"
KINDS = (TEXTS, CONVERSATIONS, PREFERENCES)

# A source of up to this many tokens is held in memory (256 MiB).
RESIDENT_TOKENS = 64 << 20
# A file is closed after this many tokens (1 GiB).
FILE_TOKENS = 256 << 20
# Documents are read one by one in shuffled order: reading ahead would not help.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class Record(NamedTuple):
    """A document with a loss mask: int32 ids, 1 where a token is trained on, and its language."""

    ids: np.ndarray  # [tokens]
    loss_mask: np.ndarray  # uint8 [tokens]
    language: str = ""


class TokenStore:
    """The documents of one source as ids; opened from a directory that `write_store` made.

    Opening maps the index into memory and reads none of it: it takes no longer for billions of
    tokens than for a few.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        """Opens a store.

        Raises:
            ValueError: its files do not belong together.
        """
        self.directory = directory
        self.manifest = _read_manifest(directory)
        self.lengths: np.ndarray = np.load(directory / LENGTHS, mmap_mode="r")  # int32 [documents]
        self.tokens = int(self.manifest["tokens"])
        self.kind = self.manifest.get("kind", TEXTS)
        # Languages of its documents; empty where they have none.
        self.languages = tuple(self.manifest.get("languages", ()))
        self._language_of = (
            np.load(directory / LANGUAGES, mmap_mode="r") if self.languages else None
        )
        self._ends = np.cumsum(self.manifest["files"]).tolist()  # documents, file by file
        if len(self.lengths) != self.manifest["documents"]:
            raise ValueError(
                f"{directory / LENGTHS} has {len(self.lengths)} documents, its manifest "
                f"{self.manifest['documents']}: delete {directory}, it will be made again"
            )

    @property
    def fingerprint(self) -> str:
        """The same for the same documents in the same order, under the same tokenizer."""
        return self.manifest["fingerprint"]

    @property
    def targets(self) -> int:
        """Target tokens of one epoch."""
        if self.kind == TEXTS:
            return self.tokens + len(self.lengths)
        return int(self.manifest["targets"])

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Ids start..stop of a document, int32."""
        if self._resident is not None:
            ids, starts = self._resident
            return ids[starts[document] + start : starts[document] + stop]
        return self._ids(self._record(document))[start:stop]

    def read_loss_mask(self, document: int) -> np.ndarray:
        """1 for each token of a document that is trained on, float32 [tokens]; in texts all are."""
        if self.kind == TEXTS:
            return np.ones(int(self.lengths[document]), np.float32)
        record = np.frombuffer(self._record(document), np.uint8)
        return record[4 * int(self.lengths[document]) :].astype(np.float32)

    def language(self, document: int) -> int:
        """The index in `languages` of a document's language; 0 where it has none."""
        return 0 if self._language_of is None else int(self._language_of[document])

    def _record(self, document: int) -> bytes:
        file = bisect.bisect_right(self._ends, document)
        first = self._ends[file - 1] if file else 0
        return self._readers[file].read([document - first])[0]

    def _ids(self, record: bytes) -> np.ndarray:
        """The tokens of a record; the loss mask, a byte each, follows them."""
        if self.kind == TEXTS:
            return np.frombuffer(record, np.int32)
        return np.frombuffer(record, np.int32, count=len(record) // 5)

    @functools.cached_property
    def _readers(self) -> Sequence[ArrayRecordReader]:
        files = range(len(self._ends))
        paths = [self.directory / TOKENS.format(number) for number in files]
        return [ArrayRecordReader(str(path), _READER_OPTIONS) for path in paths]

    @functools.cached_property
    def _resident(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.tokens > RESIDENT_TOKENS or self.kind != TEXTS:
            return None
        records = (r for reader in self._readers if reader.num_records() for r in reader.read_all())
        ids = np.frombuffer(b"".join(records), np.int32)
        return ids, np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])


def _read_manifest(directory: pathlib.Path) -> dict:
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        manifest["documents"], manifest["tokens"], manifest["files"], manifest["fingerprint"]
        if manifest.get("kind", TEXTS) != TEXTS:
            manifest["targets"]
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"{directory / MANIFEST} is missing or damaged: delete {directory}, "
            "it will be made again"
        ) from None
    return manifest


def write_store(
    directory: pathlib.Path,
    documents: Iterable[np.ndarray | Record],
    about: dict[str, str],
) -> TokenStore:
    """Writes a store in one piece: a reader sees all of it or nothing.

    Two writers of one directory do not disturb each other; the first to finish stays.

    Args:
        directory: the store's.
        documents: ids of each document; records where `about` has another `kind` than texts.
        about: goes to the manifest; its `fingerprint` is the store's.
    """
    partial = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        seen = _Seen()
        lengths, files = _write_files(partial, map(seen.encode, documents))
        np.save(partial / LENGTHS, lengths)
        counts = {"documents": len(lengths), "tokens": int(lengths.sum()), "files": files}
        manifest = {"fingerprint": "", **about, **counts, **seen.counts()}
        if "languages" in manifest:
            np.save(partial / LANGUAGES, np.array(seen.language_of, np.int16))
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        try:
            os.rename(partial, directory)
        except OSError:
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenStore(directory)


class _Seen:
    """Counts target tokens and languages of records while they are written."""

    def __init__(self) -> None:
        self.targets = 0
        self.records = False
        self.numbers: dict[str, int] = {}
        self.language_of: list[int] = []

    def encode(self, document: np.ndarray | Record) -> tuple[int, bytes]:
        """How many tokens a document has, and its bytes."""
        if not isinstance(document, Record):
            return len(document), np.ascontiguousarray(document, np.int32).tobytes()
        self.records = True
        self.targets += int(document.loss_mask.sum())
        number = self.numbers.setdefault(document.language, len(self.numbers))
        self.language_of.append(number)
        ids = np.ascontiguousarray(document.ids, np.int32).tobytes()
        return len(document.ids), ids + np.ascontiguousarray(document.loss_mask, np.uint8).tobytes()

    def counts(self) -> dict[str, object]:
        if not self.records:
            return {}
        named = {"languages": list(self.numbers)} if any(self.numbers) else {}
        return {"targets": self.targets, **named}


def _write_files(
    directory: pathlib.Path, documents: Iterable[tuple[int, bytes]]
) -> tuple[np.ndarray, list[int]]:
    """Writes the ids; returns int32 lengths of all documents, and how many each file has."""
    lengths: list[int] = []
    files: list[int] = []
    room = 0
    writer = None
    for length, record in documents:
        if room <= 0:
            if writer:
                writer.close()
            # One document a group: it is read without its neighbours.
            path = directory / TOKENS.format(len(files))
            writer = ArrayRecordWriter(str(path), "group_size:1")
            files.append(0)
            room = FILE_TOKENS
        writer.write(record)
        lengths.append(length)
        files[-1] += 1
        room -= length
    if writer:
        writer.close()
    return np.array(lengths, np.int32), files
