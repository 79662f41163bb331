"""The manifest of a checkpoint step: what its files and arrays must be, to be believed.

It holds the size and the CRC-32 of every file of the step and the shape and dtype of every array,
and is written before the step gets its name: a step without one was never finished. A checksum is
made from what was read back after the write. Cost: every byte is read once more, after a save (in
the background, each process what it wrote, about 3.5 GB/s a thread where zlib has vector code, so
that storage sets the time) and before a restore (each process its share of the files). CRC-32
misses one damaged file in four billion; it is no defence against an adversary.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax

MANIFEST = "manifest.json"
# Written by Orbax after the manifest, and of no use to a restore.
_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")
_PIECE = 1 << 23
_THREADS = 4

Checksums = dict[str, list]


class Damaged(Exception):
    """A checkpoint step that is not what was written; the message says where."""


def checksums(directory: pathlib.Path, names: Iterable[str]) -> Checksums:
    """[size in bytes, CRC-32] of files below `directory`, by name."""
    names = sorted(names)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _checksum(directory / name), names)
        return dict(zip(names, found, strict=True))


def files_below(directory: pathlib.Path) -> list[str]:
    """Names, relative to a step's directory, of the files that a manifest covers."""
    found = (p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    return sorted(name for name in found if name not in (MANIFEST, *_LATER))


def describe_arrays(items: Mapping[str, Any]) -> dict[str, list]:
    """[dtype, shape] of every array (or ShapeDtypeStruct) of the items, by its path."""
    found = {}
    for item, tree in items.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = f"{item}{jax.tree_util.keystr(path)}"
            found[name] = [jax.numpy.dtype(leaf.dtype).name, list(leaf.shape)]
    return found


def write_manifest(directory: pathlib.Path, files: Checksums, arrays: dict[str, list]) -> None:
    """Writes the manifest of a step through to the disk."""
    with open(directory / MANIFEST, "w", encoding="utf-8") as file:
        json.dump({"files": files, "arrays": arrays}, file)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    """The manifest of a step.

    Raises:
        Damaged: there is none, or it is no manifest.
    """
    try:
        value = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if value["files"] and isinstance(value["arrays"], dict):
            return value
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise Damaged(f"{MANIFEST} cannot be read")


def verify_files(
    directory: pathlib.Path, items: Iterable[str] = (), share: tuple[int, int] = (0, 1)
) -> None:
    """Compares the files of a step with its manifest: names and sizes of all, then checksums.

    Args:
        directory: of the step.
        items: whose files are looked at; all by default.
        share: (number, of so many): the part of the checksums that this process makes.

    Raises:
        Damaged: names the first file that is missing, cut, or changed.
    """
    items = tuple(items)
    expected = read_manifest(directory)["files"]
    if items:
        expected = {k: v for k, v in expected.items() if k.partition("/")[0] in items}
    for name, (size, _) in expected.items():
        path = directory / name
        if not path.is_file():
            raise Damaged(f"{name} is missing")
        if path.stat().st_size != size:
            raise Damaged(f"{name} has {path.stat().st_size} bytes, not {size}")
    number, of = share
    try:
        found = checksums(directory, sorted(expected)[number::of])
    except OSError as error:
        raise Damaged(str(error)) from None
    for name, value in found.items():
        if value != expected[name]:
            raise Damaged(f"{name} has changed since it was written (checksum)")


def check_arrays(directory: pathlib.Path, items: Mapping[str, Any]) -> None:
    """Refuses a step whose arrays are not those of `items`, by path, dtype or shape.

    Raises:
        ValueError: names the first that differs.
    """
    there, here = read_manifest(directory)["arrays"], describe_arrays(items)
    for name in sorted(set(there) | set(here)):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{directory}: {name} is {there.get(name)} there and {here.get(name)} in this run: "
                "give the model and optimizer that it was saved with, or a new workdir"
            )


def _checksum(path: pathlib.Path) -> list:
    value = size = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            value = zlib.crc32(piece, value)
            size += len(piece)
    return [size, f"{value:08x}"]
