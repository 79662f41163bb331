"""Tokenised documents on disk, with random access: ArrayRecord, and an index of lengths."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

TOKENS, LENGTHS, MANIFEST = "tokens.array_record", "lengths.npy", "manifest.json"

# A source of up to this many tokens is held in memory (256 MiB).
RESIDENT_TOKENS = 64 << 20


class TokenStore:
    """The documents of one source as ids; opened from a directory that `write_store` made."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Opens a store.

        Raises:
            ValueError: its files do not belong together.
        """
        self.directory = directory
        self.manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        self.lengths: np.ndarray = np.load(directory / LENGTHS)  # int64 [documents]
        if len(self.lengths) != self.manifest["documents"]:
            raise ValueError(
                f"{directory / LENGTHS} has {len(self.lengths)} documents, its manifest "
                f"{self.manifest['documents']}: delete {directory}, it will be made again"
            )

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Ids start..stop of a document, int32."""
        if self._resident is not None:
            ids, starts = self._resident
            return ids[starts[document] + start : starts[document] + stop]
        record = self._reader.read([document])[0]
        return np.frombuffer(record, np.int32)[start:stop]

    @functools.cached_property
    def _reader(self) -> ArrayRecordReader:
        return ArrayRecordReader(str(self.directory / TOKENS))

    @functools.cached_property
    def _resident(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.lengths.sum() > RESIDENT_TOKENS:
            return None
        records = self._reader.read_all() if len(self.lengths) else []
        ids = np.frombuffer(b"".join(records), np.int32)
        return ids, np.concatenate([[0], np.cumsum(self.lengths)])


def write_store(
    directory: pathlib.Path, documents: Iterable[np.ndarray], about: dict[str, str]
) -> TokenStore:
    """Writes a store in one piece: `directory` is there whole or not at all.

    Two writers of one directory do not disturb each other; the first to finish stays.
    """
    partial = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        # One document a group: it is read without its neighbours.
        writer = ArrayRecordWriter(str(partial / TOKENS), "group_size:1")
        lengths = []
        for ids in documents:
            writer.write(np.ascontiguousarray(ids, np.int32).tobytes())
            lengths.append(len(ids))
        writer.close()
        np.save(partial / LENGTHS, np.array(lengths, np.int64))
        manifest = {**about, "documents": len(lengths), "tokens": int(sum(lengths))}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        try:
            os.rename(partial, directory)
        except OSError:
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenStore(directory)
