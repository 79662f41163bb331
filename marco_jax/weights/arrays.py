"""Reads and writes the parameters of a checkpoint layer by layer, in Orbax's format.

A checkpoint has one array per parameter, with all layers stacked, and Orbax reads and writes whole
arrays, which may not fit a host's memory. This module (the only one that uses TensorStore) accesses
the same files one layer at a time. The format is Zarr 2 inside OCDBT: a `params` directory is one
key-value database, whose keys are "<dotted path of the parameter>/<chunk index>" and whose values
are chunks. A chunk is a part of at most 16 MiB of one layer, so that a layer can be written or read
without its neighbours, and hosts of a mesh read little more than their own shards.
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

from marco_jax.files import kvstore_of
from marco_jax.model.lora import AdapterMatrix
from marco_jax.model.parameters import Parameter, parameter_table
from marco_jax.model.qwen2_config import Qwen2Config

# The largest chunk: large enough for any storage, small enough for the shards of many hosts.
_CHUNK_BYTES = 16 << 20
# The largest part of an array that is written at once.
_BLOCK_BYTES = 256 << 20


class ArrayWriter:
    """Writes the parameters of a model into a directory, one layer at a time and in any order.

    A new writer can continue an unfinished directory: arrays that exist are opened, others created.
    Chunks are not compressed: zstd would save a fifth of bfloat16 weights at a third of the speed.
    """

    def __init__(
        self, directory: pathlib.Path, config: Qwen2Config, dtypes: Mapping[str, np.dtype]
    ) -> None:
        """Takes a directory that is empty or was started with equal config and dtypes (by path)."""
        self._directory, self._config, self._dtypes = directory, config, dtypes
        self._open: dict[str, Any] = {}

    def write(self, row: Parameter, layer: int | None, array: np.ndarray) -> None:
        """Writes one layer of a parameter, or a whole unstacked one (layer None).

        `array` has the parameter's dtype and may be any view. It is on disk when this returns.

        Raises:
            OSError: it could not be written.
        """
        try:
            if row.path not in self._open:
                self._open = {row.path: self._create(row)}
            target = self._open[row.path]
            target = target if layer is None else target[layer]
            # Blocks of whole chunks bound TensorStore's copies in memory.
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
            # Otherwise chunks of zeros are not stored, and readers find them missing.
            "store_data_equal_to_fill_value": True,
        }
        return tensorstore.open(spec, open=True, create=True).result()


class StoredParams:
    """Reads the parameters of a checkpoint layer by layer."""

    def __init__(
        self,
        directory: pathlib.Path,
        config: Qwen2Config,
        rows: Sequence[Parameter | AdapterMatrix] | None = None,
    ) -> None:
        """Opens the arrays of a step's `params` directory: `rows`, by default all parameters.

        Raises:
            ValueError: an array is missing or has another shape.
        """
        self._arrays, self._blocks = {}, {}
        for row in parameter_table(config) if rows is None else rows:
            try:
                array = tensorstore.open(_spec(directory, row.path), open=True).result()
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{directory} has no {row.path}: {_reason(error)}") from None
            if tuple(array.shape) != row.shape(config):
                raise ValueError(
                    f"{directory}: {row.path} has shape {tuple(array.shape)}, but its config needs "
                    f"{row.shape(config)}"
                )
            self._arrays[row.path] = array

    @property
    def dtype(self) -> np.dtype:
        """The widest dtype of the arrays."""
        dtypes = (array.dtype.numpy_dtype for array in self._arrays.values())
        return np.dtype(functools.reduce(jnp.promote_types, dtypes))

    @property
    def by_layer(self) -> bool:
        """Whether reading one layer reads only that layer."""
        stacked = (a for path, a in self._arrays.items() if path.startswith("layers/"))
        return all(array.chunk_layout.read_chunk.shape[0] == 1 for array in stacked)

    def read(self, row: Parameter | AdapterMatrix, layer: int | None) -> np.ndarray:
        """Reads one layer of a parameter, or a whole unstacked one, in our layout."""
        array = self._arrays[row.path]
        if layer is None:
            return array.read().result()
        layers = array.chunk_layout.read_chunk.shape[0]
        if layers == 1:
            return array[layer].read().result()
        # Chunks hold several layers, which are read together and kept for the next calls.
        first = layer // layers * layers
        if (row.path, first) not in self._blocks:
            self._blocks.clear()
            last = min(first + layers, array.shape[0])
            self._blocks[row.path, first] = array[first:last].read().result()
        return self._blocks[row.path, first][layer - first]


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The shape of the equal chunks that an array is divided into, along its longest axes."""
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
            "base": kvstore_of(directory),
            "path": path.replace("/", ".") + "/",
        },
    }


def _reason(error: Exception) -> str:
    """The system's error message, without TensorStore's description of the location."""
    text, _, _ = " ".join(str(error).split()).partition(" [")
    return text if len(text) < 200 else text.rpartition(": ")[2][-200:]
