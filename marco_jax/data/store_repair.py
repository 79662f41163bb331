"""Finding damage in token stores, and deleting what is damaged, so that it is made again."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import socket
import time
from collections.abc import Mapping
from typing import Any

from marco_jax.data.checksums import find_damage, read_checked
from marco_jax.data.store import (
    LANGUAGES,
    LENGTHS,
    MANIFEST,
    PART,
    TRAINED,
    describe_parts,
    part_directory,
    store_fingerprint,
)
from marco_jax.data.task_info import HELD_OUT_FILE
from marco_jax.files import is_remote, remove_tree
from marco_jax.runtime.processes import is_running

# Blocks of a store that are verified at each start; a small store is verified whole.
SAMPLED_BLOCKS = 32
# What is written when all parts are there.
_INDEX = (LENGTHS, TRAINED, LANGUAGES, HELD_OUT_FILE)
# An unfinished file that nobody has written to for so many seconds has no writer.
_STALE_SECONDS = 3600
_UNFINISHED_FILE = re.compile(r"\.\w.*\.[0-9a-f]{32}")


def repair_store(store: pathlib.Path, parts: int, *, whole: bool = False) -> list[str]:
    """Verifies a store, and deletes what is damaged, so that it is made again.

    Args:
        store: its directory; one that is not there is not damaged.
        parts: how many it has once it is finished.
        whole: read every block; by default a sample of them.

    Returns:
        A line for each damaged part, and for a damaged index.

    Raises:
        OSError: a file may not be read or deleted.
    """
    if not store.is_dir():
        if not _is_there(store):
            return []
        _remove(store)
        return [f"{store}: it is not a folder"]
    described: dict[pathlib.Path, dict[str, Any]] = {}
    damaged: dict[pathlib.Path, str] = {}
    for part, values in describe_parts(store, parts).items():
        if values is not None:
            described[part] = values
        elif _is_there(part):
            damaged[part] = f"{PART} is missing, damaged, or that of another part"
    files = {p / name: sums for p, v in described.items() for name, sums in v["files"].items()}
    for file, what in find_damage(files, None if whole else SAMPLED_BLOCKS).items():
        damaged.setdefault(file.parent, what)
    index = "" if damaged else _index_damage(store, parts, described)
    if damaged or index:
        _remove(store / MANIFEST)
    for name in () if (store / MANIFEST).exists() else _INDEX:
        if (store / name).is_dir():  # a file cannot be written there
            _remove(store / name)
    for part in damaged:
        _remove(part)
    lines = [f"{part}: {what}" for part, what in damaged.items()]
    return lines + ([f"{store}: {index}"] if index else [])


def remove_leftovers(store: pathlib.Path) -> None:
    """Deletes what writers of this host left unfinished when they were killed."""
    if is_remote(store):  # which has no unfinished files
        return
    for partial in store.glob(".part-*"):
        # ".part-00000.HOST.PROCESS.NUMBER"; a host's name may have dots.
        writer = partial.name[1:].split(".")[1:]
        host, process = ".".join(writer[:-2]), writer[-2] if len(writer) > 1 else ""
        if host == socket.gethostname() and process.isdigit() and not is_running(int(process)):
            shutil.rmtree(partial, ignore_errors=True)
    for partial in store.glob(".*"):
        with contextlib.suppress(OSError):
            stale = time.time() - partial.stat().st_mtime > _STALE_SECONDS
            if stale and _UNFINISHED_FILE.fullmatch(partial.name):
                partial.unlink()


def _index_damage(
    store: pathlib.Path, parts: int, described: Mapping[pathlib.Path, Mapping[str, Any]]
) -> str:
    """What is wrong with the manifest or with the files that it lists; "" if nothing is."""
    if not _is_there(store / MANIFEST):
        # The index is written before the manifest; without parts the store is not finished.
        lost = (store / LENGTHS).exists() and len(described) == parts
        return f"{MANIFEST} is missing" if lost else ""
    try:
        manifest = read_checked(store / MANIFEST)
    except ValueError:
        return f"{MANIFEST} is damaged"
    for number in range(parts):
        if part_directory(store, number) not in described:
            return f"{part_directory(store, number).name} is missing"
    if manifest["name"] != store.name or manifest["fingerprint"] != store_fingerprint(
        list(described.values())
    ):
        return f"{MANIFEST} is that of another store"
    found = find_damage({store / n: sums for n, sums in manifest["files"].items()}, None)
    return next(iter(found.values()), "")


def _is_there(path: pathlib.Path) -> bool:
    """Whether a path exists, if only as a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def _remove(path: pathlib.Path) -> None:
    """Deletes a file or a folder; another process may delete it at the same time."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink()
