"""Reads the weights of any model on disk, one layer at a time; merges or exports its adapters."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from marco_jax.files import as_path, new_directory
from marco_jax.model.lora import DOWN, UP, AdapterMatrix, adapter_table
from marco_jax.model.parameters import Parameter, contiguous
from marco_jax.weights.arrays import StoredParams
from marco_jax.weights.huggingface import open_huggingface
from marco_jax.weights.models import FoundModel
from marco_jax.weights.safetensors_files import Tensor, write_tensors

_PEFT_CONFIG = "adapter_config.json"

Read = Callable[[Parameter, "int | None"], np.ndarray]


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """Access to a model's weights; `read` returns a parameter, or one layer of it, in our layout.

    dtype: the widest dtype stored. by_layer: whether reading one layer reads only that layer.
    """

    dtype: np.dtype
    by_layer: bool
    read: Read


def stored_weights(found: FoundModel) -> StoredWeights:
    """The weights of a model, with its adapters merged in."""
    config = found.config
    if found.lora is not None:
        return _merged(found, stored_weights(found.base))
    if found.step is not None:
        params = StoredParams(found.directory / "params", config)
        return StoredWeights(params.dtype, params.by_layer, params.read)
    _, stored = open_huggingface(found.directory)
    kinds = (tensor.dtype for tensor in stored.values())

    def read(row: Parameter, layer: int | None) -> np.ndarray:
        name = row.huggingface_names(config)[layer or 0]
        return row.from_huggingface(stored[name].map(), config)

    return StoredWeights(np.dtype(functools.reduce(jnp.promote_types, kinds)), True, read)


def _merged(found: FoundModel, base: StoredWeights) -> StoredWeights:
    lora = found.lora
    adapters, rows = _adapters(found)
    kind = np.dtype(lora.base_dtype)

    def read(row: Parameter, layer: int | None) -> np.ndarray:
        # Rounded as during training of the adapters.
        kernel = base.read(row, layer).astype(kind)
        stem = row.path.removesuffix("kernel")
        if stem + DOWN not in rows:
            return kernel
        down, up = (adapters.read(rows[stem + leaf], layer) for leaf in (DOWN, UP))
        product = down.reshape(-1, lora.rank) @ up.reshape(lora.rank, -1)
        return kernel.astype(np.float32) + lora.scale * product.reshape(kernel.shape)

    return StoredWeights(kind, base.by_layer and adapters.by_layer, read)


def export_peft(found: FoundModel, out: str | os.PathLike, *, overwrite: bool = False) -> int:
    """Writes a model's adapters as a directory for `peft`, float32; returns the size in bytes.

    `out` is a new directory, or with `overwrite` an earlier export, which is replaced.

    Raises:
        FileExistsError: `out` may not be replaced.
        ValueError: the model has no adapters.
    """
    if found.lora is None:
        raise ValueError(f"{found.directory} holds no adapters: it was trained with lora.rank=0")
    adapters, rows = _adapters(found)
    out, tensors = as_path(out), {}
    free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not free and not (overwrite and (out / _PEFT_CONFIG).exists()):
        raise FileExistsError(
            f"{out} exists and is not an earlier export of adapters to overwrite: choose another "
            "directory"
        )
    for row in rows.values():
        for layer, name in enumerate(row.kernel.huggingface_names(found.config)):
            side = "lora_A" if row.path.endswith(DOWN) else "lora_B"
            name = f"base_model.model.{name.removesuffix('weight')}{side}.weight"
            tensors[name] = _peft_tensor(found, adapters, row, layer)
    with new_directory(out, "adapter_config.json") as directory:
        write_tensors(directory, tensors, 1 << 62)
        (directory / "model.safetensors").rename(directory / "adapter_model.safetensors")
        text = json.dumps(_peft_config(found), indent=2, sort_keys=True)
        (directory / _PEFT_CONFIG).write_text(text + "\n", encoding="utf-8")
        found.tokenizer.save(directory)
    return sum(tensor.nbytes for tensor in tensors.values())


def _adapters(found: FoundModel) -> tuple[StoredParams, dict[str, AdapterMatrix]]:
    rows = adapter_table(found.config, found.lora)
    arrays = StoredParams(found.directory / "params", found.config, rows)
    return arrays, {row.path: row for row in rows}


def _peft_tensor(
    found: FoundModel, adapters: StoredParams, row: AdapterMatrix, layer: int
) -> Tensor:
    """One matrix in PEFT's layout: A as [rank, inputs], B as [outputs, rank]."""
    rank, kind = found.lora.rank, np.dtype(np.float32)
    columns = int(np.prod(row.shape(found.config)[1:])) // rank
    shape = (rank, columns) if row.path.endswith(DOWN) else (columns, rank)

    def read() -> np.ndarray:
        return contiguous(adapters.read(row, layer).reshape(shape[::-1]).T, kind)

    return Tensor(kind, shape, read)


def _peft_config(found: FoundModel) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        # PEFT can only load a Hugging Face directory; a base checkpoint has to be exported.
        "base_model_name_or_path": str(found.base.directory),
        "r": found.lora.rank,
        "lora_alpha": found.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(found.lora.targets),
        "inference_mode": True,
    }
