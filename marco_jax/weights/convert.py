"""Conversion of weights, one tensor at a time: Hugging Face directory <-> checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from marco_jax.appended_files import AppendedFile
from marco_jax.files import as_path, check_space, is_remote, remove_tree, write_json
from marco_jax.model.parameters import Parameter, contiguous, parameter_table
from marco_jax.model.qwen2 import abstract_params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.lock import LOCK, locked
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.extension import Extension
from marco_jax.tokenizers.tokenizer import TOKENIZER, Tokenizer, load_tokenizer
from marco_jax.weights.arrays import ArrayWriter
from marco_jax.weights.checkpoints import CHECKPOINTS, begin_step, finish_step
from marco_jax.weights.directory import (
    MAX_SHARD_BYTES,
    check_free,
    huggingface_tensors,
    write_directory,
)
from marco_jax.weights.huggingface import check_exportable, open_huggingface
from marco_jax.weights.model_card import CARD, Terms, model_card, read_terms, stated_terms
from marco_jax.weights.models import FoundModel, find_model
from marco_jax.weights.nonfinite import NonFiniteValues
from marco_jax.weights.safetensors_files import NamedTensors, StoredTensor
from marco_jax.weights.stored_weights import stored_weights

_log = logging.getLogger(__name__)

# The journal of an unfinished import: its first line identifies the import, each further line has
# the name of a tensor that has been written, and the number of its values that are not finite.
_JOURNAL = "import.jsonl"

EMBEDDINGS = ("embed_tokens/embedding", "lm_head/embedding")


def import_huggingface(
    hf_dir: str | os.PathLike,
    out: str | os.PathLike,
    *,
    dtype: Any = None,
    extension: Extension | None = None,
    files: Mapping[str, Any] | None = None,
    weights_only: bool = False,
) -> tuple[Qwen2Config, Progress]:
    """Imports a Hugging Face directory as a workdir with one checkpoint step, without optimizer.

    One tensor is in memory at a time. An import that was killed is continued by a call with the
    same arguments; an import that fails leaves no files. NaN and infinite values are imported, and
    a warning counts them.

    Args:
        hf_dir: a Hugging Face directory with its tokenizer.
        out: a new directory.
        dtype: of the checkpoint; None keeps the stored one.
        extension: new tokens for the tokenizer, for which embeddings get rows.
        files: further JSON files to write into `out`, by name.
        weights_only: import no tokenizer. To train, a run then needs `tokenizer.path`; to evaluate
            or generate, put tokenizer files into `out`/tokenizer.

    Returns:
        the model's config, and the progress with bytes and speed.

    Raises:
        FileExistsError: `out` exists.
        OSError: a file is absent, or the disk is full.
        ValueError: the directory has no supported model or a damaged one, or another import into
            `out` is running.
    """
    out = as_path(out).absolute()
    # An object store renames nothing: there the journal, removed last, tells an unfinished import.
    partial = out if is_remote(out) else out.with_name(f".{out.name}.importing")
    if out.exists() and not (out / _JOURNAL).exists():
        raise FileExistsError(f"{out} exists: give a new directory")
    config, tensors = open_huggingface(hf_dir)
    if weights_only and extension:
        raise ValueError("an extension of the vocabulary needs the tokenizer: drop --weights_only")
    tokenizer = extension.tokenizer if extension else None
    if not extension and not weights_only:
        tokenizer = _find_tokenizer(hf_dir)
    if extension:
        config = dataclasses.replace(config, vocab_size=extension.rows(config.vocab_size))
    check_exportable(config, abstract_params(config), tokenizer)
    job = _Import(as_path(hf_dir), config, tensors, tokenizer, dtype, extension)
    if not partial.exists():
        check_space(out.parent, job.nbytes)
    partial.mkdir(parents=True, exist_ok=True)
    with locked(partial):
        try:
            progress = job.run(partial)
            for name, value in (files or {}).items():
                write_json(partial / name, value)
            (partial / _JOURNAL).unlink()
            if partial != out:
                (partial / LOCK).unlink()
                partial.replace(out)
        except Exception:
            remove_tree(partial, ignore_errors=True)
            raise
    return config, progress


def _find_tokenizer(hf_dir: str | os.PathLike) -> Tokenizer:
    try:
        return load_tokenizer(hf_dir)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; --weights_only imports without it") from None


class _Import:
    """The conversion of one Hugging Face directory to a checkpoint step."""

    def __init__(
        self,
        source: pathlib.Path,
        config: Qwen2Config,
        tensors: dict[str, StoredTensor],
        tokenizer: Tokenizer | None,
        dtype: Any,
        extension: Extension | None,
    ) -> None:
        self.config, self.tensors, self.tokenizer = config, tensors, tokenizer
        self.extension, self.non_finite = extension, NonFiniteValues()
        self.dtypes = {}
        for row in parameter_table(config):
            stored = (tensors[name].dtype for name in row.huggingface_names(config))
            self.dtypes[row.path] = np.dtype(dtype or functools.reduce(jnp.promote_types, stored))
        files = sorted({tensor.path for tensor in tensors.values()})
        self.identity = {
            "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
            "model": dataclasses.asdict(config),
            "dtypes": {path: kind.name for path, kind in self.dtypes.items()},
            "tokenizer": tokenizer and tokenizer.fingerprint,
        }
        self.source = source
        self.card = dataclasses.asdict(read_terms(source))
        # Of the checkpoint's arrays.
        self.nbytes = sum(
            self._size(row) * len(row.huggingface_names(config)) for row in parameter_table(config)
        )

    def run(self, partial: pathlib.Path) -> Progress:
        """Writes the missing tensors, then the manifest and the tokenizer."""
        done = self._begin(partial)
        step = partial / CHECKPOINTS / "0"
        items = [
            (row, layer, row.huggingface_names(self.config)[layer or 0])
            for row in parameter_table(self.config)
            for layer in (range(self.config.num_hidden_layers) if row.stacked else [None])
        ]
        before = sum(self._size(row) for row, _, name in items if name in done)
        if done:
            _log.info(f"continuing an interrupted import: {len(done)} tensors are written")
        writer = ArrayWriter(step / "params", self.config, self.dtypes)
        with (
            contextlib.closing(AppendedFile(partial / _JOURNAL)) as journal,
            Progress("importing", self.nbytes, "B", initial=before) as progress,
        ):
            for row, layer, name in items:
                if name in done:
                    continue
                with np.errstate(over="ignore"):  # what overflows is counted
                    array = self._array(row, name)
                writer.write(row, layer, array)
                line = [name, self.non_finite.count(name, array)]
                journal.write(json.dumps(line) + "\n")
                progress(self._size(row))
            finish_step(step, self.dtypes)
        if self.tokenizer is not None:
            self.tokenizer.save(partial / TOKENIZER)
        write_json(partial / CARD, self.card)
        self.non_finite.warn(self.source)
        return progress

    def _begin(self, partial: pathlib.Path) -> set[str]:
        """Returns the tensors that an earlier call of the same import has written.

        Clears the directory and starts anew if its journal is of another import.
        """
        journal = partial / _JOURNAL
        with contextlib.suppress(OSError, ValueError):
            # A line without a newline was cut by a kill; its tensor is written again.
            first, *rest = journal.read_text(encoding="utf-8").rpartition("\n")[0].split("\n")
            if json.loads(first) == json.loads(json.dumps(self.identity)):
                done = dict(json.loads(line) for line in rest)
                journal.write_text("".join(f"{line}\n" for line in (first, *rest)), "utf-8")
                for name, number in done.items():
                    if number:
                        self.non_finite.add(name, number)
                return set(done)
        for path in partial.iterdir():
            if path.is_dir():
                remove_tree(path)
            elif not path.name.startswith(LOCK):
                path.unlink()
        begin_step(partial, self.config)
        journal.write_text(json.dumps(self.identity) + "\n", encoding="utf-8")
        return set()

    def _array(self, row: Parameter, name: str) -> np.ndarray:
        array = self.tensors[name].map()
        if self.extension and row.path in EMBEDDINGS:
            array = self.extension.grow(array)
        kind = self.dtypes[row.path]
        array = contiguous(array.T, kind) if row.inputs else array.astype(kind, copy=False)
        return array.reshape(row.layer_shape(self.config))

    def _size(self, row: Parameter) -> int:
        """Bytes of one tensor of a parameter."""
        size = int(np.prod(row.layer_shape(self.config), dtype=np.int64))
        return size * self.dtypes[row.path].itemsize


def export_model(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    dtype: Any = None,
    terms: Terms | None = None,
    overwrite: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    weights_only: bool = False,
) -> tuple[FoundModel, Progress]:
    """Exports any model as a Hugging Face directory, with one tensor in memory at a time.

    Args:
        path: see `find_model`.
        dtype: of the stored weights; None keeps the model's.
        terms: for the model card; empty fields are taken from the run or directory.
        overwrite: replace an earlier export as a whole.
        max_shard_bytes: the largest safetensors file.
        weights_only: write no tokenizer files; the model needs none.

    Returns:
        the model, and the progress with bytes and speed.

    Raises:
        FileExistsError: `out` may not be replaced.
        OSError: there is no such model, or the disk is full.
        ValueError: the model is damaged.
    """
    out = as_path(out)
    check_free(out, overwrite)
    found = find_model(path, weights_only)
    if weights_only:
        found = dataclasses.replace(found, tokenizer=None)
    check_exportable(found.config, abstract_params(found.config), found.tokenizer)
    tensors = named_tensors(found, dtype)
    total = sum(tensor.nbytes for tensor in tensors.values())
    terms = (terms or Terms()).or_else(stated_terms(found.workdir or found.directory))
    card = model_card(out.resolve().name, found.config, terms, found.workdir, found.step)
    with Progress("exporting", total, "B") as progress:
        write_directory(
            out,
            found.config,
            tensors,
            found.tokenizer,
            files={"README.md": card},
            overwrite=overwrite,
            progress=progress,
            max_shard_bytes=max_shard_bytes,
        )
    return found, progress


def named_tensors(found: FoundModel, dtype: Any = None) -> NamedTensors:
    """The weights of a model in Hugging Face names and layout, read on demand.

    Adapters are merged in, one layer at a time.
    """
    weights = stored_weights(found)
    tensors = huggingface_tensors(found.config, np.dtype(dtype or weights.dtype), weights.read)
    if weights.by_layer:
        return tensors
    # Layers of a parameter are read together, so they are written one after another.
    rows = parameter_table(found.config)
    names = (name for row in rows for name in row.huggingface_names(found.config))
    return {name: tensors[name] for name in names}
