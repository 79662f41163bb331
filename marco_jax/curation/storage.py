"""Files that workers leave for one another: each appears whole or not at all."""

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
    """A function that adds a row to a compressed file of JSON lines."""
    import zstandard

    with new_file(path) as raw, zstandard.ZstdCompressor(level=1).stream_writer(raw) as out:
        yield lambda row: out.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")


def rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The rows that `new_rows` has written."""
    import zstandard

    with path.open("rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
        yield from map(json.loads, io.TextIOWrapper(stream, encoding="utf-8", newline="\n"))


def write_array(path: pathlib.Path, values: np.ndarray) -> None:
    """An array as .npy."""
    with new_file(path) as file:
        np.save(file, values)


def joined(paths: Iterable[pathlib.Path]) -> np.ndarray:
    """Arrays of several files, one after another."""
    return np.concatenate([np.load(path) for path in paths])
