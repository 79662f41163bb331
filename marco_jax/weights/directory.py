"""Writes a Hugging Face directory from a mapping of named tensors that are read on demand.

Every export uses it: parameters on a mesh, a checkpoint on disk, merged adapters. A directory
appears complete or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marco_jax.files import as_path, new_directory
from marco_jax.model.parameters import Parameter, contiguous, parameter_table
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.weights.safetensors_files import NamedTensors, Tensor, write_tensors

MAX_SHARD_BYTES = 5_000_000_000
GENERATION = "generation_config.json"


def huggingface_shapes(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a Hugging Face checkpoint, by name, layer by layer."""
    return {
        row.huggingface_names(config)[layer or 0]: row.huggingface_shape(config)
        for row, layer in in_huggingface_order(config)
    }


def in_huggingface_order(config: Qwen2Config) -> Iterator[tuple[Parameter, int | None]]:
    """Yields (row, layer) of every tensor, layer by layer; layer is None if not stacked."""
    rows = parameter_table(config)
    stacked = [row for row in rows if row.stacked]
    first = rows.index(stacked[0])
    yield from ((row, None) for row in rows[:first])
    for layer in range(config.num_hidden_layers):
        yield from ((row, layer) for row in stacked)
    yield from ((row, None) for row in rows[first + len(stacked) :])


def huggingface_tensors(
    config: Qwen2Config,
    dtype: np.dtype,
    read: Callable[[Parameter, int | None], np.ndarray],
) -> dict[str, Tensor]:
    """A model's tensors in Hugging Face names, layout and order, read on demand.

    `read` returns a parameter, or one layer of it, in our layout.
    """

    def tensor(row: Parameter, layer: int | None) -> Tensor:
        def read_one() -> np.ndarray:
            return contiguous(row.to_huggingface(read(row, layer), config), dtype)

        return Tensor(dtype, row.huggingface_shape(config), read_one)

    return {
        row.huggingface_names(config)[layer or 0]: tensor(row, layer)
        for row, layer in in_huggingface_order(config)
    }


def write_directory(
    out_dir: str | os.PathLike[str],
    config: Qwen2Config,
    tensors: NamedTensors,
    tokenizer: Tokenizer | None = None,
    *,
    files: Mapping[str, str] | None = None,
    overwrite: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Writes weights, configs, tokenizer and other files; one tensor is in memory at a time.

    Args:
        out_dir: created; may exist if empty.
        tensors: all tensors of the model, of one dtype; see `huggingface_tensors`.
        tokenizer: saved beside the weights; its EOS becomes bos, eos and pad, unless its
            generation_config.json has other ids.
        files: more files, by name, such as a README.md.
        overwrite: replace an earlier export (a directory with a config.json) as a whole.
        max_shard_bytes: the largest safetensors file.
        progress: called with the size in bytes of every written tensor.

    Raises:
        FileExistsError: out_dir is a file, or a directory that may not be replaced.
        OSError: the disk is full.
    """
    out_dir = as_path(out_dir)
    check_free(out_dir, overwrite)
    with new_directory(out_dir, "config.json") as directory:
        write_tensors(directory, tensors, max_shard_bytes, progress)
        (dtype,) = {tensor.dtype for tensor in tensors.values()}
        for name, text in (files or {}).items():
            (directory / name).write_text(text, encoding="utf-8")
        _write_configs(directory, config, tokenizer, dtype)


def check_free(out_dir: Path, overwrite: bool) -> None:
    """Checks that an export may write to a directory.

    Raises:
        FileExistsError: it is a file or a directory that may not be replaced.
    """
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


def _write_configs(
    directory: Path, config: Qwen2Config, tokenizer: Tokenizer | None, dtype: np.dtype
) -> None:
    # transformers 4 reads torch_dtype, transformers 5 dtype.
    fields = config.to_huggingface() | {"torch_dtype": dtype.name, "dtype": dtype.name}
    if tokenizer is not None:
        tokenizer.save(directory)
        ids = {f"{role}_token_id": tokenizer.eos_id for role in ("bos", "eos", "pad")}
        if (directory / GENERATION).exists():
            carried = json.loads((directory / GENERATION).read_text(encoding="utf-8"))
            fields |= ids | {name: carried[name] for name in ids if name in carried}
        else:
            fields |= ids
            _write_json(directory / GENERATION, {**ids, "do_sample": False})
    _write_json(directory / "config.json", fields)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
