"""Parameters of a checkpoint, layer by layer: the one module that touches TensorStore.

A checkpoint holds the layers of a model stacked, and of a large one a stacked array is larger than
a host would like to hold. Orbax reads and writes whole arrays; here they are written and read a
layer at a time, in the format that Orbax has (Zarr 2 arrays in one OCDBT database a directory, by
their dotted path). Arrays are cut into chunks of a part of one layer, so that the hosts of a mesh
read little more than their own parts.
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import tensorstore

from marco_jax.model.lora import AdapterMatrix
from marco_jax.model.parameters import Parameter, parameter_table
from marco_jax.model.qwen2_config import Qwen2Config

# Of a chunk: large enough for any storage, small enough for a mesh of many hosts.
_CHUNK_BYTES = 16 << 20
# Of an array that is on its way to the disk at once.
_BLOCK_BYTES = 256 << 20


class ArrayWriter:
    """Writes the parameters of a model into a directory, in any order, also after a restart.

    They are not compressed: zstd takes a fifth off bfloat16 weights, and two thirds of the speed.
    """

    def __init__(
        self, directory: pathlib.Path, config: Qwen2Config, dtypes: Mapping[str, np.dtype]
    ) -> None:
        """Takes a directory that is empty or was begun with the same config and dtypes by path."""
        self._directory, self._config, self._dtypes = directory, config, dtypes
        self._open: dict[str, Any] = {}

    def write(self, row: Parameter, layer: int | None, array: np.ndarray) -> None:
        """Writes one layer of a parameter, or the whole of an unstacked one (layer None).

        `array` is of the parameter's dtype and may be any view; it is on the disk when this
        returns.

        Raises:
            OSError: it could not be written.
        """
        try:
            if row.path not in self._open:
                self._open = {row.path: self._create(row)}
            target = self._open[row.path]
            target = target if layer is None else target[layer]
            # Whole chunks at a time, so that few of them are in memory beside the array.
            chunk = target.chunk_layout.write_chunk.shape[0]
            step = max(1, _BLOCK_BYTES * len(array) // array.nbytes // chunk) * chunk
            for start in range(0, len(array), step):
                block = slice(start, min(start + step, len(array)))
                target[block].write(array[block]).result()
        except (ValueError, RuntimeError) as error:
            raise OSError(_reason(error)) from error

    def _create(self, row: Parameter) -> Any:
        shape, dtype = row.shape(self._config), np.dtype(self._dtypes[row.path])
        chunks = chunk_shape(row.layer_shape(self._config), dtype.itemsize)
        spec = _spec(self._directory, row.path) | {
            "metadata": {
                "shape": list(shape),
                "chunks": [1] * row.stacked + list(chunks),
                "dtype": dtype.name if dtype.name == "bfloat16" else dtype.str,
                "compressor": None,
                "fill_value": None,
                "order": "C",
            },
            # Else a chunk of zeros would be left out, and missing to a reader that asks for it.
            "store_data_equal_to_fill_value": True,
        }
        return tensorstore.open(spec, open=True, create=True).result()


class StoredParams:
    """The parameters that a checkpoint holds, to be read layer by layer."""

    def __init__(
        self,
        directory: pathlib.Path,
        config: Qwen2Config,
        rows: Sequence[Parameter | AdapterMatrix] | None = None,
    ) -> None:
        """Opens the arrays of a step's `params` directory; `rows` of a table where it is not all.

        Raises:
            ValueError: an array is missing or of another shape.
        """
        self._arrays, self._blocks = {}, {}
        for row in parameter_table(config) if rows is None else rows:
            try:
                array = tensorstore.open(_spec(directory, row.path), open=True).result()
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{directory} has no {row.path}: {_reason(error)}") from None
            if tuple(array.shape) != row.shape(config):
                raise ValueError(
                    f"{directory}: {row.path} has shape {tuple(array.shape)}, its config asks for "
                    f"{row.shape(config)}"
                )
            self._arrays[row.path] = array

    @property
    def dtype(self) -> np.dtype:
        """The widest type of the arrays."""
        dtypes = (array.dtype.numpy_dtype for array in self._arrays.values())
        return np.dtype(functools.reduce(jnp.promote_types, dtypes))

    @property
    def by_layer(self) -> bool:
        """Whether a layer can be read without reading its neighbours."""
        stacked = (a for path, a in self._arrays.items() if path.startswith("layers/"))
        return all(array.chunk_layout.read_chunk.shape[0] == 1 for array in stacked)

    def read(self, row: Parameter | AdapterMatrix, layer: int | None) -> np.ndarray:
        """One layer of a parameter, or the whole of an unstacked one, in our layout."""
        array = self._arrays[row.path]
        if layer is None:
            return array.read().result()
        layers = array.chunk_layout.read_chunk.shape[0]
        if layers == 1:
            return array[layer].read().result()
        # A chunk holds several layers: they are read together, and kept for the next call.
        first = layer // layers * layers
        if (row.path, first) not in self._blocks:
            self._blocks.clear()
            last = min(first + layers, array.shape[0])
            self._blocks[row.path, first] = array[first:last].read().result()
        return self._blocks[row.path, first][layer - first]


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Parts of equal size that an array is cut into, along its longest axes."""
    chunk = list(shape)
    while math.prod(chunk) * itemsize > _CHUNK_BYTES:
        axis = int(np.argmax(chunk))
        chunk[axis] //= next(n for n in range(2, chunk[axis] + 1) if chunk[axis] % n == 0)
    return tuple(chunk)


def _spec(directory: pathlib.Path, path: str) -> dict[str, Any]:
    return {
        "driver": "zarr",
        "kvstore": {
            "driver": "ocdbt",
            "base": {"driver": "file", "path": str(directory) + "/"},
            "path": path.replace("/", ".") + "/",
        },
    }


def _reason(error: Exception) -> str:
    """What the system said, without TensorStore's account of where."""
    text, _, _ = " ".join(str(error).split()).partition(" [")
    return text if len(text) < 200 else text.rpartition(": ")[2][-200:]
