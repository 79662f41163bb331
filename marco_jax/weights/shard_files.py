"""The shards of arrays that one process holds, as one file with a manifest.

The manifest is written last, into a folder with a temporary name that is renamed after it: a folder
with its final name is whole. It lists every shard by the name, dtype and shape of its array and by
its bounds there, so that a shard is found whichever process wrote it.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from marco_jax.weights.manifest import MANIFEST, Damaged

_SHARDS = "shards.bin"
_UNFINISHED = ".unfinished"


class ShardKey(NamedTuple):
    """A part of an array: its name, dtype and shape, and the bounds of the part on each axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]

    @property
    def part_shape(self) -> tuple[int, ...]:
        """The shape of the part."""
        return tuple(stop - start for start, stop in self.bounds)

    @property
    def nbytes(self) -> int:
        """The size of the part."""
        return int(np.prod(self.part_shape, dtype=np.int64)) * jax.numpy.dtype(self.dtype).itemsize


def shard_key(name: str, leaf: Any, index: tuple[slice, ...]) -> ShardKey:
    """The key of the part of `leaf` (an array or ShapeDtypeStruct) at an index of a device."""
    bounds = tuple(one.indices(size)[:2] for one, size in zip(index, leaf.shape, strict=True))
    return ShardKey(name, jax.numpy.dtype(leaf.dtype).name, tuple(leaf.shape), bounds)


def local_shards(arrays: Any) -> dict[ShardKey, np.ndarray]:
    """Copies of the shards on this process's devices, each once."""
    found: dict[ShardKey, jax.Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        name = jax.tree_util.keystr(path)
        for shard in leaf.addressable_shards:
            key = shard_key(name, leaf, shard.index)
            if key not in found:
                shard.data.copy_to_host_async()
                found[key] = shard.data
    # On a CPU an array without a copy would be the buffer that the next step overwrites.
    return {key: np.array(data) for key, data in found.items()}


def write_shards(
    directory: pathlib.Path, shards: Mapping[ShardKey, np.ndarray], fields: Mapping[str, Any]
) -> None:
    """Writes shards as `directory`, which appears whole or not at all and replaces an older one.

    `fields` are JSON and are kept in the manifest.
    """
    partial = directory.with_name(f"{directory.name}{_UNFINISHED}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    rows, offset = [], 0
    with open(partial / _SHARDS, "wb") as file:
        for key, array in shards.items():
            data = _bytes(array)
            file.write(data)
            rows.append([*key, offset, zlib.crc32(data)])
            offset += data.nbytes
        file.flush()
        os.fsync(file.fileno())
    with open(partial / MANIFEST, "w", encoding="utf-8") as file:
        json.dump({**fields, "bytes": offset, "shards": rows}, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(directory, ignore_errors=True)
    os.rename(partial, directory)


def remove_unfinished(directory: pathlib.Path) -> None:
    """Removes what a process that was killed has left below `directory`."""
    for path in directory.glob(f"*{_UNFINISHED}.*"):
        shutil.rmtree(path, ignore_errors=True)


class ShardFolder:
    """What `write_shards` has written: the fields of its manifest, and its shards by key."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Reads the manifest.

        Raises:
            Damaged: it cannot be read, or the file of shards has not its size.
        """
        self._path = directory / _SHARDS
        try:
            self.fields = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
            rows = self.fields.pop("shards")
            self._places = {
                ShardKey(name, dtype, tuple(shape), tuple(map(tuple, bounds))): (offset, check)
                for name, dtype, shape, bounds, offset, check in rows
            }
            size = self._path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{directory} cannot be read: {error}") from None
        if size != self.fields["bytes"]:
            raise Damaged(f"{self._path} has {size} bytes, not {self.fields['bytes']}")

    def __contains__(self, key: ShardKey) -> bool:
        return key in self._places

    def read(self, key: ShardKey) -> np.ndarray:
        """A shard, its checksum verified.

        Raises:
            Damaged: it has changed since it was written.
        """
        offset, check = self._places[key]
        try:
            with open(self._path, "rb") as file:
                file.seek(offset)
                data = np.fromfile(file, np.uint8, key.nbytes)
        except OSError as error:
            raise Damaged(str(error)) from None
        if data.nbytes != key.nbytes or zlib.crc32(data) != check:
            raise Damaged(f"{self._path}: {key.name} has changed since it was written (checksum)")
        return as_shard(key, data)


def as_shard(key: ShardKey, data: np.ndarray) -> np.ndarray:
    """The bytes of a shard as an array of its dtype and shape."""
    return data.view(jax.numpy.dtype(key.dtype)).reshape(key.part_shape)


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
