"""Reads and atomically writes the files that workers exchange."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from marco_jax.files import new_file


@contextlib.contextmanager
def new_rows(path: pathlib.Path) -> Iterator[Any]:
    """Opens a compressed file of JSON lines; yields a function that writes a row."""
    import zstandard

    with new_file(path) as raw, zstandard.ZstdCompressor(level=1).stream_writer(raw) as out:
        yield lambda row: out.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")


def rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Reads the rows that `new_rows` wrote."""
    import zstandard

    with path.open("rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
        yield from map(json.loads, io.TextIOWrapper(stream, encoding="utf-8", newline="\n"))


def write_array(path: pathlib.Path, values: np.ndarray) -> None:
    """Writes an array as .npy."""
    with new_file(path) as file:
        np.save(file, values)


def joined(paths: Iterable[pathlib.Path]) -> np.ndarray:
    """Concatenates the arrays of several files."""
    return np.concatenate([np.load(path) for path in paths])
