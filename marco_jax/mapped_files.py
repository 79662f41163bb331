"""Arrays in files whose values are read when they are asked for.

Local ones are mapped into memory; those in an object store are read in ranges of bytes.
"""

from __future__ import annotations

import collections
import io
import math
import pathlib
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from marco_jax.files import is_remote, map_files
from marco_jax.stores.object_path import ObjectPath
from marco_jax.stores.objects import download, read_range

# What one request reads at least, and how much of that a process keeps.
_BLOCK_BYTES = 256 << 10
_KEPT_BYTES = 256 << 20


def map_array(path: pathlib.Path) -> np.ndarray:
    """The array of a .npy file, mapped into memory read-only.

    One of an object store is copied to a temporary file without a name, which the system removes
    with the array: it is an index, small beside what it points to.
    """
    if not is_remote(path):
        return np.load(path, mmap_mode="r")
    with tempfile.NamedTemporaryFile() as file:
        download(path, pathlib.Path(file.name))
        return np.load(file.name, mmap_mode="r")


def load_arrays(paths: Sequence[pathlib.Path]) -> list[np.ndarray]:
    """The arrays of .npy files, in memory."""
    return map_files(lambda path: np.load(io.BytesIO(path.read_bytes())), paths)


def map_values(path: pathlib.Path, dtype: Any) -> np.ndarray | RemoteValues:
    """The values of a file that holds nothing but them, read-only; slices of them are arrays."""
    if is_remote(path):
        return RemoteValues(
            path, np.dtype(dtype), (path.stat().st_size // np.dtype(dtype).itemsize,)
        )
    # An empty file cannot be mapped.
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)


class RemoteValues:
    """An array in an object, of which slices of the first axis are read when they are taken.

    Threads may read at the same time.
    """

    def __init__(
        self, path: ObjectPath, dtype: np.dtype, shape: tuple[int, ...], offset: int = 0
    ) -> None:
        """Reads nothing.

        Args:
            path: of the object.
            dtype: of the values.
            shape: of the array.
            offset: bytes before the first value.
        """
        self.dtype, self.shape = np.dtype(dtype), tuple(shape)
        self._path, self._offset = path, offset
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if not isinstance(first, slice):
            number = range(len(self))[first]
            return self[(slice(number, number + 1), *rest)][0]
        start, stop, step = first.indices(len(self))
        data = _read_blocks(
            self._path,
            self._offset + start * self._row_bytes,
            self._offset + max(start, stop) * self._row_bytes,
        )
        values = np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])[::step]
        return values[(slice(None), *rest)] if rest else values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        values = self[:] if self.shape else self._scalar()
        return values if dtype is None else values.astype(dtype)

    def _scalar(self) -> np.ndarray:
        data = read_range(self._path, self._offset, self._offset + self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(())


_kept: collections.OrderedDict[tuple[ObjectPath, int], bytes] = collections.OrderedDict()
_lock = threading.Lock()


def _read_blocks(path: ObjectPath, start: int, stop: int) -> bytes:
    """Bytes start..stop of an object, by way of the blocks that were read last."""
    if stop - start > _KEPT_BYTES // 4:
        return read_range(path, start, stop)
    numbers = range(start // _BLOCK_BYTES, -(-stop // _BLOCK_BYTES))
    with _lock:
        found = {n: _kept[path, n] for n in numbers if (path, n) in _kept}
    missing = [number for number in numbers if number not in found]
    if missing:
        first, last = missing[0], missing[-1] + 1
        data = read_range(path, first * _BLOCK_BYTES, last * _BLOCK_BYTES)
        for number in range(first, last):
            begin = (number - first) * _BLOCK_BYTES
            found[number] = data[begin : begin + _BLOCK_BYTES]
    with _lock:
        for number in numbers:
            _kept[path, number] = found[number]
            _kept.move_to_end((path, number))
        while len(_kept) > _KEPT_BYTES // _BLOCK_BYTES:
            _kept.popitem(last=False)
    data = b"".join(found[number] for number in numbers)
    begin = start - numbers.start * _BLOCK_BYTES if numbers else 0
    return data[begin : begin + stop - start]
