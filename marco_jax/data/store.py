"""Tokenised documents of a source on disk, with random access.

A store is a directory of parts. A part is written whole by one process from one part of the
source's files, and never changes: flat files of ids (and loss masks), where each document begins,
and hashes of its texts (units.py). A manifest, written last, lists the parts; a store without one
is not finished, and the parts that it has are used again. Every file has checksums by block.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from marco_jax.data.checksums import file_checksums, read_checked, write_checked
from marco_jax.files import is_remote, map_files, new_file, upload_tree
from marco_jax.mapped_files import RemoteValues, load_arrays, map_array, map_values

MANIFEST, PART = "manifest.json", "part.json"
TOKENS, MASK, STARTS, UNITS = "tokens.bin", "mask.bin", "starts.npy", "units.npy"
LENGTHS, TRAINED, LANGUAGES = "lengths.npy", "trained.npy", "languages.npy"
# Kinds of stores: texts, every token of which is a target; conversations, of which some tokens are
# trained on; preferences, of which two consecutive documents are a pair. The last two have a loss
# mask beside the tokens.
TEXTS, CONVERSATIONS, PREFERENCES = "texts", "conversations", "preferences"

# Parts of a store that are mapped into memory at once: a process may have 65,530 mappings.
_OPEN_PARTS = 256


class TokenStore:
    """The documents of one source as ids.

    Opening maps the index into memory and reads none of it: it takes no longer for billions of
    tokens than for a few.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        """Opens a store that `finish_store` made.

        Raises:
            ValueError: its manifest is missing or damaged.
        """
        self.directory = directory
        self.manifest = read_checked(directory / MANIFEST)
        self.tokens = int(self.manifest["tokens"])
        self.kind: str = self.manifest["kind"]
        # Languages of its documents; empty where they have none.
        self.languages = tuple(self.manifest["languages"])
        self.lengths: np.ndarray = map_array(directory / LENGTHS)  # int32 [documents]
        self._language_of = map_array(directory / LANGUAGES) if self.languages else None
        self._ends = np.cumsum(self.manifest["documents_by_part"]).tolist()
        self._open = functools.lru_cache(maxsize=_OPEN_PARTS)(self._open_part)

    @property
    def fingerprint(self) -> str:
        """A hash of the documents: equal for the same ids in the same order."""
        return self.manifest["fingerprint"]

    @property
    def targets(self) -> int:
        """Target tokens of one epoch that are trained on, if no document is cut."""
        return int(self.manifest["targets"])

    @functools.cached_property
    def trained(self) -> np.ndarray:
        """Of each conversation: how many targets are trained on, and which is the first.

        int32 [documents, 2]; targets are counted from 0, the first of them is the second token.
        """
        return map_array(self.directory / TRAINED)

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Ids start..stop of a document, int32."""
        part, begin, end = self._locate(document)
        return part.tokens[begin + start : min(end, begin + stop)]

    def read_loss_mask(self, document: int) -> np.ndarray:
        """1 for each token of a document that is trained on, float32 [tokens]; in texts all are."""
        part, begin, end = self._locate(document)
        if part.mask is None:
            return np.ones(end - begin, np.float32)
        return part.mask[begin:end].astype(np.float32)

    def language(self, document: int) -> int:
        """The index in `languages` of a document's language; 0 where it has none."""
        return 0 if self._language_of is None else int(self._language_of[document])

    def holds(self, units: np.ndarray) -> np.ndarray:
        """Which hashes of texts (uint64, sorted) occur in its documents: bool, the same shape."""
        found = np.zeros(len(units), bool)
        for number in range(len(self._ends)):
            mine = map_array(part_directory(self.directory, number) / UNITS)
            if len(mine):
                index = np.minimum(np.searchsorted(mine, units), len(mine) - 1)
                found |= mine[index] == units
        return found

    def _locate(self, document: int) -> tuple[_Files, int, int]:
        """The files of a document's part, and where it begins and ends in them."""
        number = bisect.bisect_right(self._ends, document)
        index = document - (self._ends[number - 1] if number else 0)
        part = self._open(number)
        return part, int(part.starts[index]), int(part.starts[index + 1])

    def _open_part(self, number: int) -> _Files:
        part = part_directory(self.directory, number)
        mask = None if self.kind == TEXTS else map_values(part / MASK, np.uint8)
        return _Files(map_array(part / STARTS), map_values(part / TOKENS, np.int32), mask)


class _Files(NamedTuple):
    """Files of a part in memory: int64 [documents + 1], int32 [tokens], uint8 [tokens]."""

    starts: np.ndarray
    tokens: np.ndarray | RemoteValues
    mask: np.ndarray | RemoteValues | None


class PartWriter:
    """Collects the documents of a part; see `new_part`."""

    def __init__(self, directory: pathlib.Path, kind: str, name: str) -> None:
        """Opens the files of a part in an existing directory.

        Args:
            directory: where they are written.
            kind: of the store.
            name: of the store and the part, so that swapped parts are noticed.
        """
        self._directory, self._kind, self._name = directory, kind, name
        self._files = contextlib.ExitStack()
        self._ids = self._files.enter_context((directory / TOKENS).open("wb"))
        self._mask = None
        if kind != TEXTS:
            self._mask = self._files.enter_context((directory / MASK).open("wb"))
        self._digest = hashlib.blake2b(kind.encode(), digest_size=16)
        self._lengths: list[np.ndarray] = []
        self._trained: list[tuple[int, int]] = []
        self._languages: list[int] = []
        self._numbers: dict[str, int] = {}
        self._units: list[np.ndarray] = []
        self.tokens = self.targets = 0

    def add_texts(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        """Adds several texts.

        Args:
            ids: int32, those of all texts one after the other.
            lengths: int [texts].
        """
        self._write(ids, lengths)
        self.targets += len(ids) + len(lengths)

    def add_conversation(self, ids: np.ndarray, loss_mask: np.ndarray, language: str) -> None:
        """Adds a document with a loss mask, 1 where a token is trained on."""
        self._write(ids, np.array([len(ids)]))
        mask = np.ascontiguousarray(loss_mask, np.uint8)
        self._mask.write(mask)
        self._digest.update(mask)
        self._digest.update(language.encode())
        trained = np.flatnonzero(mask[1:])
        self._trained.append((len(trained), int(trained[0]) if len(trained) else len(mask)))
        self.targets += len(trained)
        self._languages.append(self._numbers.setdefault(language, len(self._numbers)))

    def add_units(self, units: np.ndarray) -> None:
        """Adds hashes of the documents' texts, uint64."""
        self._units.append(np.unique(units))

    def close(self, about: Mapping[str, Any]) -> None:
        """Writes the index and, last, part.json with `about`."""
        self._files.close()
        lengths = np.concatenate([np.zeros(0, np.int64), *self._lengths])
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        _save(self._directory / STARTS, starts)
        units = np.unique(np.concatenate([np.zeros(0, np.uint64), *self._units]))
        _save(self._directory / UNITS, units)
        if self._mask:
            trained = np.array(self._trained, np.int32).reshape(-1, 2)
            _save(self._directory / TRAINED, trained)
            _save(self._directory / LANGUAGES, np.array(self._languages, np.int16))
        names = sorted(path.name for path in self._directory.iterdir())
        values = {
            **about,
            "name": self._name,
            "kind": self._kind,
            "documents": len(lengths),
            "tokens": self.tokens,
            "targets": self.targets,
            "languages": list(self._numbers),
            "digest": self._digest.hexdigest(),
            "files": {name: file_checksums(self._directory / name) for name in names},
        }
        write_checked(self._directory / PART, values)

    def _write(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        ids = np.ascontiguousarray(ids, np.int32)
        self._ids.write(ids)
        self._digest.update(np.ascontiguousarray(lengths, np.int64))
        self._digest.update(ids)
        self._lengths.append(np.asarray(lengths, np.int64))
        self.tokens += len(ids)


@contextlib.contextmanager
def new_part(store: pathlib.Path, number: int, kind: str) -> Iterator[PartWriter]:
    """A writer of a part, which appears in its store when the block has closed it, or not at all.

    Two writers of one part do not disturb each other; the first to finish stays. In an object store
    the last one does, whose files are the same.
    """
    final = part_directory(store, number)
    if is_remote(final):
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            yield PartWriter(folder, kind, part_name(final))
            upload_tree(folder, final, last=PART)
        return
    writer = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    partial = store / f".{final.name}.{writer}"
    partial.mkdir(parents=True)
    try:
        yield PartWriter(partial, kind, part_name(final))
        try:
            os.rename(partial, final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def part_directory(store: pathlib.Path, number: int) -> pathlib.Path:
    """The directory of a part."""
    return store / f"part-{number:05d}"


def part_name(directory: pathlib.Path) -> str:
    """The name of a part with its store's."""
    return f"{directory.parent.name}/{directory.name}"


def describe_part(directory: pathlib.Path) -> dict[str, Any] | None:
    """What part.json says of a finished part; None where it is missing, damaged or another's."""
    try:
        values = read_checked(directory / PART)
    except ValueError:
        return None
    return values if values.get("name") == part_name(directory) else None


def describe_parts(store: pathlib.Path, parts: int) -> dict[pathlib.Path, dict[str, Any] | None]:
    """`describe_part` of the first `parts` parts of a store, by their directories in order."""
    folders = [part_directory(store, number) for number in range(parts)]
    return dict(zip(folders, map_files(describe_part, folders), strict=True))


def store_fingerprint(described: Sequence[Mapping[str, Any]]) -> str:
    """The fingerprint of a store, from the descriptions of its parts."""
    digests = json.dumps([part["digest"] for part in described])
    return hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()


def finish_store(
    store: pathlib.Path, parts: int, about: Mapping[str, Any], beside: Sequence[str] = ()
) -> None:
    """Joins the index of all parts, and writes the manifest.

    Args:
        store: its directory.
        parts: how many it has, all of them finished.
        about: goes to the manifest.
        beside: names of other files in it that are verified with the index.
    """
    found = describe_parts(store, parts)
    folders, described = list(found), list(found.values())
    kind = described[0]["kind"]
    names = list(dict.fromkeys(name for part in described for name in part["languages"]))
    named = any(names)
    starts = load_arrays([folder / STARTS for folder in folders])
    lengths = [np.diff(own).astype(np.int32) for own in starts]
    _save(store / LENGTHS, np.concatenate(lengths))
    files = [*beside, LENGTHS]
    if kind != TEXTS:
        _save(
            store / TRAINED, np.concatenate(load_arrays([folder / TRAINED for folder in folders]))
        )
        files.append(TRAINED)
    if named:
        numbers = []
        stored = load_arrays([folder / LANGUAGES for folder in folders])
        for part, values in zip(described, stored, strict=True):
            own = np.array([names.index(name) for name in part["languages"]], np.int16)
            numbers.append(own[values])
        _save(store / LANGUAGES, np.concatenate(numbers))
        files.append(LANGUAGES)
    values = {
        **about,
        "name": store.name,
        "fingerprint": store_fingerprint(described),
        "kind": kind,
        "documents": sum(part["documents"] for part in described),
        "documents_by_part": [part["documents"] for part in described],
        "tokens": sum(part["tokens"] for part in described),
        "targets": sum(part["targets"] for part in described),
        "languages": names if named else [],
        "errors": _sum_counts(part.get("errors", {}) for part in described),
        "files": {name: file_checksums(store / name) for name in files},
    }
    write_checked(store / MANIFEST, values)


def _save(path: pathlib.Path, values: np.ndarray) -> None:
    # Written by way of memory: np.save to a full disk raises an error that does not name it.
    buffer = io.BytesIO()
    np.save(buffer, values)
    with new_file(path) as file:
        file.write(buffer.getbuffer())


def _sum_counts(counts: Iterator[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for reason, count in part.items():
            total[reason] = total.get(reason, 0) + count
    return total
