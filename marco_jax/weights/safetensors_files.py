"""Reads and writes directories of safetensors files, single or sharded with an index.

Reading maps the files into memory, so that only the parts that devices use come from disk. Writing
holds one tensor in memory at a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from marco_jax.files import check_space, is_remote, read_json_object
from marco_jax.mapped_files import RemoteValues

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The supported floating-point types, by their safetensors name.
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor whose values are read on demand; each call of `read` creates the array again.

    Imports and exports pass weights as a mapping of names to these, which is never in memory as a
    whole.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


NamedTensors = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """The location of a tensor on disk."""

    name: str
    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    def map(self) -> np.ndarray:
        """The tensor, read-only: mapped into memory, so that its values are read when accessed.

        One of an object store is read whole.
        """
        if is_remote(self.path):
            return np.asarray(RemoteValues(self.path, self.dtype, self.shape, self.offset))
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Finds the tensors of a checkpoint directory, by name.

    Raises:
        FileNotFoundError: no safetensors file, or a file of the index is absent.
        ValueError: a truncated file or another format, or an index that contradicts its files.
    """
    if (directory / SINGLE).exists():
        return _read_header(directory / SINGLE)
    if not (directory / INDEX).exists():
        raise FileNotFoundError(
            f"{directory} has neither {SINGLE} nor {INDEX}: give a directory that transformers' "
            "save_pretrained wrote"
        )
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{directory / INDEX} has no weight_map: download it again")
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or not file_name:
            raise ValueError(
                f"{directory / INDEX}: weight_map has {json.dumps(file_name)[:60]} for {name}, not "
                "the name of a file: download it again"
            )
    tensors: dict[str, StoredTensor] = {}
    for file_name in sorted(set(weight_map.values())):
        path = directory / file_name
        if not path.exists():
            raise FileNotFoundError(f"{path} is absent though {INDEX} names it: copy it there")
        tensors.update(_read_header(path))
    for name, file_name in weight_map.items():
        if name not in tensors or tensors[name].path.name != file_name:
            raise ValueError(
                f"{directory / file_name} has no {name} though {INDEX} lists it: copy both again"
            )
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is absent: give the directory of a Hugging Face model")
    try:
        return read_json_object(path)
    except ValueError as error:
        raise ValueError(f"{error}; download it again") from None


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """Reads the header: 8 bytes of length, then JSON of name -> dtype, shape, data_offsets."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{path} is truncated or not a safetensors file: copy it again")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise ValueError(f"{path} is not a safetensors file: copy it again") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a safetensors file: copy it again")
    start = 8 + length
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise ValueError(f"{path}: the header of {name} cannot be read: copy it again")
        if kind not in _DTYPES:
            raise ValueError(
                f"{path}: {name} has dtype {kind}, which is not one of "
                f"{', '.join(_DTYPES)}: give the unquantised weights"
            )
        dtype = _DTYPES[kind]
        if end - begin != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise ValueError(f"{path}: the header of {name} contradicts itself: copy it again")
        if start + end > size:
            raise ValueError(
                f"{path} is truncated: {size} bytes of at least {start + end}: copy it again"
            )
        tensors[name] = StoredTensor(name, path, dtype, shape, start + begin)
    return tensors


def write_tensors(
    directory: Path,
    tensors: NamedTensors,
    max_shard_bytes: int,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Writes tensors in their order, with one at a time in memory.

    Args:
        directory: an existing directory, for model.safetensors, or shards and their index.
        tensors: each is read once, in order.
        max_shard_bytes: the largest file, unless a single tensor is larger.
        progress: called with the size in bytes of every written tensor.

    Raises:
        OSError: the disk is full; checked before the first byte is written.
    """
    total = sum(tensor.nbytes for tensor in tensors.values())
    check_space(directory, total)
    shards = list(_split({name: t.nbytes for name, t in tensors.items()}, max_shard_bytes))
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file_name = SINGLE if len(shards) == 1 else file_name
        with (directory / file_name).open("wb") as file:
            file.write(_header({name: tensors[name] for name in names}))
            for name in names:
                file.write(_bytes(name, tensors[name]))
                progress(tensors[name].nbytes)
        weight_map |= dict.fromkeys(names, file_name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _header(tensors: NamedTensors) -> bytes:
    """The header of a file, padded so that tensors are aligned to 8 bytes."""
    # transformers 4 rejects a file whose metadata has no format.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    kinds = {dtype: kind for kind, dtype in _DTYPES.items()}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(name: str, tensor: Tensor) -> memoryview:
    array = np.ascontiguousarray(tensor.read())
    if array.dtype != tensor.dtype or array.shape != tensor.shape:
        raise ValueError(
            f"{name} should be {tensor.dtype} {tensor.shape} but is {array.dtype} {array.shape}"
        )
    return memoryview(array.reshape(-1).view(np.uint8))


def _split(sizes: Mapping[str, int], limit: int) -> Iterable[list[str]]:
    """Yields groups of consecutive names whose sizes sum to at most `limit`."""
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    yield group
