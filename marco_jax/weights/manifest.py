"""The manifest of a checkpoint step, by which it is verified, recovered or set aside.

It lists the size and CRC-32 of every file of the step, and the shape and dtype of every array. It
is written before the step gets its final name, so a step without a manifest was never finished.
Checksums are computed from files that are read back after the write. This reads every byte once
more after a save (in the background, each process its own files) and before a restore (each process
its share of the files), at about 3.5 GB/s per thread where zlib has vector code, so that storage
limits the speed. CRC-32 misses one damaged file in four billion, and does not protect against an
adversary.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from marco_jax.files import is_remote, map_files, remove_tree, sizes_below

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# In Orbax's temporary name of a step or an item; and the file that it writes last.
TEMPORARY = ".orbax-checkpoint-tmp"
COMMITTED = "commit_success.txt"
# Files that Orbax writes after the manifest; a restore does not need them.
_LATER = ("_CHECKPOINT_METADATA", COMMITTED)
_READ_BYTES = 1 << 23
_THREADS = 4

Checksums = dict[str, list]


class Damaged(Exception):
    """A checkpoint step differs from its manifest; the message names the file."""


def checksums(directory: pathlib.Path, names: Iterable[str]) -> Checksums:
    """Computes [size in bytes, CRC-32] of files below `directory`, by name."""
    names = sorted(names)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _checksum(directory / name), names)
        return dict(zip(names, found, strict=True))


def files_below(directory: pathlib.Path) -> list[str]:
    """The names of the files that a manifest covers, relative to the step's directory."""
    return sorted(
        name
        for name in sizes_below(directory)
        # In an object store each item has a mark that it is finished, which may come later.
        if name not in (MANIFEST, *_LATER) and not name.endswith(f"/{COMMITTED}")
    )


def describe_arrays(items: Mapping[str, Any]) -> dict[str, list]:
    """[dtype, shape] of every array (or ShapeDtypeStruct) of the items, by its path."""
    found = {}
    for item, tree in items.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = f"{item}{jax.tree_util.keystr(path)}"
            found[name] = [jax.numpy.dtype(leaf.dtype).name, list(leaf.shape)]
    return found


def write_manifest(directory: pathlib.Path, files: Checksums, arrays: dict[str, list]) -> None:
    """Writes the manifest of a step and flushes it to disk."""
    with (directory / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({"files": files, "arrays": arrays}, file)
        if not is_remote(directory):
            file.flush()
            os.fsync(file.fileno())


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest of a step.

    Raises:
        Damaged: the manifest is missing or cannot be read.
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
        items: the items whose files are checked; all by default.
        share: (number, count) of processes that divide the checksums among them.

    Raises:
        Damaged: names the first file that is missing, truncated or changed.
    """
    items = tuple(items)
    expected = read_manifest(directory)["files"]
    if items:
        expected = {k: v for k, v in expected.items() if k.partition("/")[0] in items}
    sizes = sizes_below(directory)
    for name, (size, _) in expected.items():
        if name not in sizes:
            raise Damaged(f"{name} is missing")
        if sizes[name] != size:
            raise Damaged(f"{name} has {sizes[name]} bytes, not {size}")
    number, count = share
    try:
        found = checksums(directory, sorted(expected)[number::count])
    except OSError as error:
        raise Damaged(str(error)) from None
    for name, value in found.items():
        if value != expected[name]:
            raise Damaged(f"{name} has changed since it was written (checksum)")


def check_arrays(directory: pathlib.Path, items: Mapping[str, Any]) -> None:
    """Checks that a step has the arrays of `items`, with the same paths, dtypes and shapes.

    Raises:
        ValueError: names the first array that differs.
    """
    saved, wanted = read_manifest(directory)["arrays"], describe_arrays(items)
    for name in sorted(set(saved) | set(wanted)):
        if saved.get(name) != wanted.get(name):
            raise ValueError(
                f"{directory}: {name} is {saved.get(name)} but {wanted.get(name)} in this run: "
                "give the model and optimizer that it was saved with, or a new workdir"
            )


def _checksum(path: pathlib.Path) -> list:
    value = size = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            value = zlib.crc32(data, value)
            size += len(data)
    return [size, f"{value:08x}"]


def finished_steps(directory: pathlib.Path) -> list[int]:
    """Steps whose save was finished, in no order. Their files are not verified."""
    steps = [path for path in directory.iterdir() if path.name.isdigit()]
    if is_remote(directory):
        # Nothing is renamed there: a step has its name from its first file on, and a manifest last.
        whole = map_files(lambda step: (step / MANIFEST).exists(), steps)
        steps = [step for step, is_whole in zip(steps, whole, strict=True) if is_whole]
    return [int(step.name) for step in steps]


def settle(directory: pathlib.Path) -> None:
    """Finishes or removes saves that were interrupted before their final rename.

    A save that has a manifest, and all files of it, is complete and gets its final name. Any other
    is removed, since the saves of a run that is killed often would fill the disk.
    """
    if is_remote(directory):
        _settle_remote(directory)
        return
    for path in sorted(directory.glob(f"*{TEMPORARY}*")):
        final = directory / path.name.partition(".")[0]
        try:
            if final.exists():
                raise Damaged("the step exists")
            verify_files(path)
        except Damaged as damage:
            _log.warning(f"the save of checkpoint {final.name} was interrupted ({damage}): removed")
            remove_tree(path)
        else:
            _log.info(
                f"the save of checkpoint {final.name} was interrupted before its rename: finished"
            )
            (path / COMMITTED).touch()
            os.replace(path, final)


def _settle_remote(directory: pathlib.Path) -> None:
    """`settle` in an object store, where a step without a manifest was interrupted."""
    finished = set(finished_steps(directory))
    for path in [path for path in directory.iterdir() if path.name.isdigit()]:
        if int(path.name) not in finished:
            _log.warning(f"the save of checkpoint {path.name} was interrupted: removed")
            remove_tree(path)
        elif not (path / COMMITTED).exists():
            (path / COMMITTED).touch()


def set_aside(step: pathlib.Path, directory: pathlib.Path, problem: str) -> None:
    """Moves a damaged step to `directory`, where it can be inspected."""
    target, number = directory / step.name, 1
    while target.exists():
        number += 1
        target = directory / f"{step.name}.{number}"
    _log.warning(f"checkpoint {step.name} is damaged ({problem}): moved to {target}")
    directory.mkdir(exist_ok=True)
    step.replace(target)
