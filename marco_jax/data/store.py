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

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

TOKENS, LENGTHS, MANIFEST = "tokens-{:05d}.array_record", "lengths.npy", "manifest.json"

# A source of up to this many tokens is held in memory (256 MiB).
RESIDENT_TOKENS = 64 << 20
# A file is closed after this many tokens (1 GiB).
FILE_TOKENS = 256 << 20
# Documents are read one by one, in an order of ours: no reader needs threads or a look ahead.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


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

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Ids start..stop of a document, int32."""
        if self._resident is not None:
            ids, starts = self._resident
            return ids[starts[document] + start : starts[document] + stop]
        file = bisect.bisect_right(self._ends, document)
        first = self._ends[file - 1] if file else 0
        record = self._readers[file].read([document - first])[0]
        return np.frombuffer(record, np.int32)[start:stop]

    @functools.cached_property
    def _readers(self) -> Sequence[ArrayRecordReader]:
        files = range(len(self._ends))
        paths = [self.directory / TOKENS.format(number) for number in files]
        return [ArrayRecordReader(str(path), _READER_OPTIONS) for path in paths]

    @functools.cached_property
    def _resident(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.tokens > RESIDENT_TOKENS:
            return None
        records = (r for reader in self._readers if reader.num_records() for r in reader.read_all())
        ids = np.frombuffer(b"".join(records), np.int32)
        return ids, np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])


def _read_manifest(directory: pathlib.Path) -> dict:
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        manifest["documents"], manifest["tokens"], manifest["files"], manifest["fingerprint"]
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"{directory / MANIFEST} is missing or damaged: delete {directory}, "
            "it will be made again"
        ) from None
    return manifest


def write_store(
    directory: pathlib.Path, documents: Iterable[np.ndarray], about: dict[str, str]
) -> TokenStore:
    """Writes a store in one piece: `directory` is there whole or not at all.

    Two writers of one directory do not disturb each other; the first to finish stays.

    Args:
        directory: the store's.
        documents: ids of each document.
        about: goes to the manifest; its `fingerprint` is the store's.
    """
    partial = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        lengths, files = _write_files(partial, documents)
        np.save(partial / LENGTHS, lengths)
        counts = {"documents": len(lengths), "tokens": int(lengths.sum()), "files": files}
        manifest = {"fingerprint": "", **about, **counts}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        try:
            os.rename(partial, directory)
        except OSError:
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenStore(directory)


def _write_files(
    directory: pathlib.Path, documents: Iterable[np.ndarray]
) -> tuple[np.ndarray, list[int]]:
    """Writes the ids; returns int32 lengths of all documents, and how many each file has."""
    lengths: list[int] = []
    files: list[int] = []
    room = 0
    writer = None
    for ids in documents:
        if room <= 0:
            if writer:
                writer.close()
            # One document a group: it is read without its neighbours.
            path = directory / TOKENS.format(len(files))
            writer = ArrayRecordWriter(str(path), "group_size:1")
            files.append(0)
            room = FILE_TOKENS
        writer.write(np.ascontiguousarray(ids, np.int32).tobytes())
        lengths.append(len(ids))
        files[-1] += 1
        room -= len(ids)
    if writer:
        writer.close()
    return np.array(lengths, np.int32), files
