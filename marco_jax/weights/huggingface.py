"""Import and export of Hugging Face directories (Qwen2, Qwen3) by the table of parameters.py."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from marco_jax.files import as_path
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Parameter, Params, flatten, parameter_table, unflatten
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.processes import barrier
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.weights.directory import (
    MAX_SHARD_BYTES,
    check_free,
    huggingface_shapes,
    huggingface_tensors,
    write_directory,
)
from marco_jax.weights.nonfinite import NonFiniteValues
from marco_jax.weights.safetensors_files import StoredTensor, read_json, stored_tensors

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
# Buffers that some versions of transformers store, although they follow from config.json.
_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")


def read_config(hf_dir: str | os.PathLike[str]) -> Qwen2Config:
    """Reads the config of a Hugging Face Qwen2, Qwen2.5 or dense Qwen3, of transformers 4 or 5.

    Raises:
        FileNotFoundError: no config.json.
        ValueError: another architecture, quantised weights, or an unsupported feature.
    """
    path = as_path(hf_dir) / "config.json"
    fields = read_json(path)
    if fields.get("quantization_config"):
        raise ValueError(f"{path}: quantization_config is set: give the unquantised weights")
    try:
        return Qwen2Config.from_huggingface(fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def open_huggingface(hf_dir: str | os.PathLike[str]) -> tuple[Qwen2Config, dict[str, StoredTensor]]:
    """Reads and checks the config and the tensor headers of a Hugging Face checkpoint.

    Ignores buffers that transformers computes, and a second copy of a tied head.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a truncated file, or tensors that are missing, unexpected or mis-shaped.
    """
    config = read_config(hf_dir)
    tensors = stored_tensors(as_path(hf_dir))
    tensors = {name: t for name, t in tensors.items() if not name.endswith(_BUFFERS)}
    if config.tie_word_embeddings and HEAD in tensors:
        _check_tied(tensors.get(EMBEDDING), tensors.pop(HEAD))
    _check_tensors(as_path(hf_dir), config, tensors)
    return config, tensors


def load_huggingface(
    hf_dir: str | os.PathLike[str],
    dtype: Any = None,
    sharding: Sharding | None = None,
) -> tuple[Qwen2Config, Params]:
    """Loads a Hugging Face checkpoint, one tensor at a time.

    Args:
        hf_dir: config.json and model.safetensors, or shards and their index.
        dtype: of the parameters; None keeps the stored one.
        sharding: mesh and rules; each process then reads only its shards of the files. None puts
            the parameters on the default device.

    Returns:
        the config, and the parameters as a nested dict of arrays with layers stacked on axis 0.
        The arrays may be donated. A warning counts NaN and infinite values of the parts that this
        process reads. Errors are those of `open_huggingface`.
    """
    config, tensors = open_huggingface(hf_dir)
    non_finite = NonFiniteValues()
    params = {
        row.path: _load(row, config, tensors, dtype, sharding, non_finite)
        for row in parameter_table(config)
    }
    non_finite.warn(hf_dir)
    return config, unflatten(params)


def _check_tied(embedding: StoredTensor | None, head: StoredTensor) -> None:
    """Checks that the head of a tied checkpoint equals its embedding."""
    if embedding is not None and not np.array_equal(embedding.map(), head.map()):
        raise ValueError(
            f"{head.path}: {HEAD} differs from {EMBEDDING} though tie_word_embeddings is true: "
            "set it to false in config.json to keep both"
        )


def _check_tensors(directory: Path, config: Qwen2Config, tensors: dict[str, StoredTensor]) -> None:
    shapes = huggingface_shapes(config)
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise ValueError(
            f"{directory} lacks {_first_of(missing)}: its config.json (num_hidden_layers "
            f"{config.num_hidden_layers}, tie_word_embeddings {config.tie_word_embeddings}) or "
            "its safetensors files belong to another model"
        )
    unexpected = [name for name in tensors if name not in shapes]
    if unexpected:
        family = config.architecture.family
        raise ValueError(
            f"{tensors[unexpected[0]].path} has {_first_of(unexpected)}, which a {family} of its "
            f"config.json does not have: give the directory of a plain {family} model"
        )
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(
                f"{tensors[name].path}: {name} has shape {list(tensors[name].shape)}, config.json "
                f"needs {list(shape)}: correct config.json"
            )


def _first_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"


def _load(
    row: Parameter,
    config: Qwen2Config,
    tensors: dict[str, StoredTensor],
    dtype: Any,
    sharding: Sharding | None,
    non_finite: NonFiniteValues,
) -> jax.Array:
    """Loads one parameter; every device copies its own shard out of the mapped files.

    Layers are inserted into the stacked array one after another, so the host holds only one.
    """
    stored = [tensors[name] for name in row.huggingface_names(config)]
    if dtype is None:
        dtype = functools.reduce(jnp.promote_types, [tensor.dtype for tensor in stored])
    if sharding is None:
        of_stack = of_layer = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    else:
        of_stack, of_layer = sharding.named(*row.logical_axes), sharding.named(*row.axes)

    def load(tensor: StoredTensor) -> jax.Array:
        def read(index: tuple[slice, ...]) -> np.ndarray:
            with np.errstate(over="ignore"):
                part = np.array(row.from_huggingface(tensor.map(), config)[index], dtype)
            # Counted, overflows included. Devices with equal shards read the same part.
            non_finite.count(tensor.name, part, str(index))
            return part

        return jax.make_array_from_callback(row.layer_shape(config), of_layer, read)

    if not row.stacked:
        return load(stored[0])
    empty, insert = _stacker(row.shape(config), np.dtype(dtype), of_stack)
    stack = empty()
    for number, tensor in enumerate(stored):
        # Waiting keeps the host from reading ahead of the device.
        stack = jax.block_until_ready(insert(stack, load(tensor), number))
    return stack


@functools.cache
def _stacker(
    shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.Sharding
) -> tuple[Callable, Callable]:
    """Compiled functions: () -> zeros, and (stack, layer, number) -> the stack with the layer."""

    def insert(stack: jax.Array, layer: jax.Array, number: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(stack, layer, number, axis=0)

    return (
        jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding),
        jax.jit(insert, out_shardings=sharding, donate_argnums=0),
    )


def save_huggingface(
    out_dir: str | os.PathLike[str],
    config: Qwen2Config,
    params: Params,
    tokenizer: Tokenizer | None = None,
    dtype: Any = None,
    *,
    files: Mapping[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
) -> None:
    """Writes a directory that transformers 4 and 5 load: weights, configs and tokenizer files.

    The directory appears complete or not at all. In a run of several processes all of them must
    call this with the same (shared) directory, and the first one writes.

    Args:
        out_dir: created; may exist if empty.
        params: with any sharding.
        dtype: of the stored weights; None keeps the dtype of the parameters.
        files: further text files by name, such as README.md.
        max_shard_bytes: the largest safetensors file.
        overwrite: replace an earlier export (a directory with a config.json) as a whole.

    Raises:
        FileExistsError: the directory may not be replaced.
        ValueError: parameters or a tokenizer that do not fit the config.
    """
    out_dir = as_path(out_dir)
    check_exportable(config, params, tokenizer)
    check_free(out_dir, overwrite)
    flat = flatten(params)
    dtype = np.dtype(dtype or flat["embed_tokens/embedding"].dtype)
    tensors = huggingface_tensors(config, dtype, lambda row, layer: _fetch(flat[row.path], layer))
    if jax.process_index() == 0:
        write_directory(
            out_dir,
            config,
            tensors,
            tokenizer,
            files=files,
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
        )
    else:
        for tensor in tensors.values():
            tensor.read()
    barrier("save_huggingface")


def check_exportable(
    config: Qwen2Config, params: Params, tokenizer: Tokenizer | None = None
) -> None:
    """Checks that `save_huggingface` can write a model; arrays may be abstract.

    A run checks this before its first step, so that its export does not fail after the last.

    Raises:
        ValueError: parameters or a tokenizer that do not fit the config.
    """
    flat = flatten(params)
    expected = {row.path: row.shape(config) for row in parameter_table(config)}
    wrong = sorted(set(flat) ^ set(expected))
    if wrong:
        state = "is missing from" if wrong[0] in expected else "is not one of"
        raise ValueError(
            f"{wrong[0]} {state} the model's parameters: pass the config they belong to"
        )
    for path, shape in expected.items():
        if tuple(flat[path].shape) != shape:
            raise ValueError(
                f"{path} has shape {tuple(flat[path].shape)}, the config needs {shape}: "
                "pass the config the parameters belong to"
            )
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the embedding {config.vocab_size} "
            "rows: pass the tokenizer that the model was trained with"
        )


def _fetch(array: Any, layer: int | None) -> np.ndarray:
    """Copies an array, or one layer of it, to the host; all processes that share it must call."""
    shared = isinstance(array, jax.Array) and not array.is_fully_addressable
    part = array if layer is None else array[layer]
    return np.asarray(multihost_utils.process_allgather(part, tiled=True) if shared else part)
