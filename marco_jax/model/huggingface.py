"""Import and export of Hugging Face Qwen2 directories, through the table in parameters.py."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from marco_jax.model.config import Qwen2Config
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Parameter, Params, flatten, parameter_table, unflatten
from marco_jax.model.safetensors_files import (
    StoredTensor,
    read_json,
    stored_tensors,
    write_tensors,
)

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
MAX_SHARD_BYTES = 5_000_000_000


class SavedTokenizer(Protocol):
    """What an export needs of a tokenizer."""

    vocab_size: int
    eos_id: int

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes files that transformers.AutoTokenizer reads."""
        ...


def read_config(hf_dir: str | os.PathLike[str]) -> Qwen2Config:
    """The config of a Hugging Face Qwen2 or Qwen2.5 directory, of transformers 4 or 5.

    Raises:
        FileNotFoundError: no config.json.
        ValueError: another architecture, quantised weights, or an unsupported feature.
    """
    path = Path(hf_dir) / "config.json"
    fields = read_json(path)
    if fields.get("quantization_config"):
        raise ValueError(f"{path}: quantization_config is set: give the unquantised weights")
    try:
        return Qwen2Config.from_huggingface(fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_huggingface(
    hf_dir: str | os.PathLike[str],
    dtype: Any = None,
    sharding: Sharding | None = None,
) -> tuple[Qwen2Config, Params]:
    """Loads a Hugging Face Qwen2 checkpoint.

    Args:
        hf_dir: config.json and model.safetensors, or shards and their index.
        dtype: of the parameters; None keeps the stored one.
        sharding: mesh and rules; each device then reads its own part of the files. None puts the
            parameters on the default device.

    Returns:
        the config, and the parameters as a nested dict of arrays, layers stacked on axis 0.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a truncated file, or tensors that are missing, unexpected or mis-shaped.
    """
    config = read_config(hf_dir)
    tensors = stored_tensors(Path(hf_dir))
    if config.tie_word_embeddings and HEAD in tensors:
        _check_tied(tensors.get(EMBEDDING), tensors.pop(HEAD))
    _check_tensors(Path(hf_dir), config, tensors)
    return config, unflatten(
        {row.path: _load(row, config, tensors, dtype, sharding) for row in parameter_table(config)}
    )


def _check_tied(embedding: StoredTensor | None, head: StoredTensor) -> None:
    """A tied checkpoint may store its head a second time, but not another head."""
    if embedding is not None and not np.array_equal(embedding.map(), head.map()):
        raise ValueError(
            f"{head.path}: {HEAD} differs from {EMBEDDING} though tie_word_embeddings is true: "
            "set it to false in config.json to keep both"
        )


def _check_tensors(directory: Path, config: Qwen2Config, tensors: dict[str, StoredTensor]) -> None:
    shapes = _huggingface_shapes(config)
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise ValueError(
            f"{directory} lacks {_several(missing)}: its config.json (num_hidden_layers "
            f"{config.num_hidden_layers}, tie_word_embeddings {config.tie_word_embeddings}) or "
            "its safetensors files belong to another model"
        )
    unexpected = [name for name in tensors if name not in shapes]
    if unexpected:
        raise ValueError(
            f"{tensors[unexpected[0]].path} holds {_several(unexpected)}, which a Qwen2 of its "
            "config.json does not have: give the directory of a plain Qwen2 model"
        )
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(
                f"{tensors[name].path}: {name} has shape {list(tensors[name].shape)}, config.json "
                f"asks for {list(shape)}: correct config.json"
            )


def _huggingface_shapes(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a checkpoint, layer by layer."""
    rows = parameter_table(config)
    stacked = [row for row in rows if row.stacked]
    first = rows.index(stacked[0])
    shapes = {row.huggingface: row.huggingface_shape(config) for row in rows[:first]}
    for layer in range(config.num_hidden_layers):
        for row in stacked:
            shapes[row.huggingface_names(config)[layer]] = row.huggingface_shape(config)
    rest = rows[first + len(stacked) :]
    return shapes | {row.huggingface: row.huggingface_shape(config) for row in rest}


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"


def _load(
    row: Parameter,
    config: Qwen2Config,
    tensors: dict[str, StoredTensor],
    dtype: Any,
    sharding: Sharding | None,
) -> jax.Array:
    """One parameter; every device copies its own part out of the mapped files."""
    stored = [tensors[name] for name in row.huggingface_names(config)]
    if dtype is None:
        dtype = functools.reduce(jnp.promote_types, [tensor.dtype for tensor in stored])

    def read(index: tuple[slice, ...]) -> np.ndarray:
        if not row.stacked:
            return np.array(row.from_huggingface(stored[0].map(), config)[index], dtype)
        layers, *rest = index
        parts = [
            row.from_huggingface(tensor.map(), config)[tuple(rest)] for tensor in stored[layers]
        ]
        return np.stack(parts, dtype=dtype, casting="unsafe")

    shape = row.shape(config)
    if sharding is None:
        return jnp.asarray(read((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, sharding.named(*row.logical_axes), read)


def save_huggingface(
    out_dir: str | os.PathLike[str],
    config: Qwen2Config,
    params: Params,
    tokenizer: SavedTokenizer | None = None,
    dtype: Any = None,
    *,
    overwrite: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a directory that transformers 4 and 5 load: weights, configs and tokenizer files.

    The directory appears complete or not at all. In a run of several processes all of them call
    this with the same (shared) directory, and the first one writes.

    For a model of type qwen2, AutoTokenizer of transformers 5 builds Qwen2's own tokenizer whatever
    the tokenizer files say: any other one is to be loaded with PreTrainedTokenizerFast.

    Args:
        out_dir: created; may exist if empty.
        config: the model.
        params: its parameters, of any sharding.
        tokenizer: saved beside the weights; its separator becomes bos, eos and pad.
        dtype: of the stored weights; None keeps that of the parameters.
        overwrite: replaces an earlier export (a directory with a config.json), whole.
        max_shard_bytes: of one safetensors file.

    Raises:
        FileExistsError: out_dir is a file, or a directory that may not be replaced.
        ValueError: parameters or a tokenizer that do not fit the config.
    """
    out_dir = Path(out_dir)
    check_exportable(config, params, tokenizer)
    _check_free(out_dir, overwrite)
    flat = flatten(params)
    dtype = np.dtype(dtype or flat["embed_tokens/embedding"].dtype)
    sources = {
        name: (row, None if not row.stacked else layer)
        for row in parameter_table(config)
        for layer, name in enumerate(row.huggingface_names(config))
    }

    def read(name: str) -> np.ndarray:
        row, layer = sources[name]
        array = _fetch(flat[row.path], layer)
        return np.ascontiguousarray(row.to_huggingface(array, config), dtype)

    sizes = {
        name: int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        for name, shape in _huggingface_shapes(config).items()
    }
    if jax.process_index() == 0:
        with _replacing(out_dir) as directory:
            write_tensors(directory, sizes, read, max_shard_bytes)
            _write_configs(directory, config, tokenizer, dtype)
    else:
        for name in sizes:
            read(name)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("save_huggingface")


def check_exportable(
    config: Qwen2Config, params: Params, tokenizer: SavedTokenizer | None = None
) -> None:
    """Refuses what `save_huggingface` could not write; arrays may be abstract.

    A run calls it before its first step, so that it does not find out after its last.

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
                f"{path} has shape {tuple(flat[path].shape)}, the config asks for {shape}: "
                "pass the config the parameters belong to"
            )
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the embedding {config.vocab_size} "
            "rows: pass the tokenizer that the model was trained with"
        )


def _check_free(out_dir: Path, overwrite: bool) -> None:
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f"{out_dir} is a file: choose a directory")
    if not out_dir.is_dir() or not any(out_dir.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{out_dir} is not empty: choose another directory or overwrite it")
    if not (out_dir / "config.json").exists():
        raise FileExistsError(
            f"{out_dir} is not an earlier export (it has no config.json): choose another directory"
        )


@contextlib.contextmanager
def _replacing(out_dir: Path) -> Iterator[Path]:
    """A temporary directory that becomes `out_dir` at the end, and is removed on an error."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    # The last component may be a link or "..": the temporary one goes beside the real directory.
    out_dir = out_dir.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=out_dir.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        if out_dir.exists():
            out_dir.rename(Path(scratch) / "old")
        new.rename(out_dir)


@functools.cache
def _replicator(sharding: NamedSharding) -> Any:
    """A compiled function: (array, layer or None) -> the array or its layer, on every device."""

    def replicate(array: jax.Array, layer: jax.Array | None) -> jax.Array:
        return (
            array if layer is None else jax.lax.dynamic_index_in_dim(array, layer, keepdims=False)
        )

    return jax.jit(replicate, out_shardings=sharding)


def _fetch(array: Any, layer: int | None) -> np.ndarray:
    """An array, or one layer of it, on the host; where processes share it, all must call."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
        return np.asarray(_replicator(everywhere)(array, layer))
    return np.asarray(array if layer is None else array[layer])


def _write_configs(
    directory: Path, config: Qwen2Config, tokenizer: SavedTokenizer | None, dtype: np.dtype
) -> None:
    # transformers 4 reads torch_dtype, transformers 5 dtype.
    fields = config.to_huggingface() | {"torch_dtype": dtype.name, "dtype": dtype.name}
    if tokenizer is not None:
        ids = {f"{role}_token_id": tokenizer.eos_id for role in ("bos", "eos", "pad")}
        fields |= ids
        _write_json(directory / "generation_config.json", {**ids, "do_sample": False})
        tokenizer.save(directory)
    _write_json(directory / "config.json", fields)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
