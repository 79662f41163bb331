"""Finds and loads the models of `--model=PATH` and `config.init_from`, and creates their engines.

PATH is a workdir (of a run or an import), a checkpoint step in it, or a Hugging Face directory.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from marco_jax.files import as_path
from marco_jax.languages import add_config_languages
from marco_jax.model.lora import AdapterMatrix, LoraOptions, adapter_tree, merge
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import abstract_params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.tokenizers.tokenizer import TOKENIZER, Tokenizer, load_tokenizer
from marco_jax.weights.checkpoints import CHECKPOINTS, Meta, read_meta, restore_params
from marco_jax.weights.huggingface import load_huggingface, read_config
from marco_jax.weights.manifest import Damaged, finished_steps, read_manifest, verify_files

if TYPE_CHECKING:
    from marco_jax.decoding.engine import Engine

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """A model that was found and verified, without its weights.

    `directory` is a checkpoint step, or a Hugging Face directory if workdir and step are None. If
    `lora` is set, the step has adapters of `base`. Only a model that `find_model` was asked for
    with `weights_only` may have no tokenizer.
    """

    config: Qwen2Config
    tokenizer: Tokenizer | None
    directory: pathlib.Path
    workdir: pathlib.Path | None = None
    step: int | None = None
    meta: Meta = dataclasses.field(default_factory=dict)
    lora: LoraOptions | None = None
    base: FoundModel | None = None


@dataclasses.dataclass
class LoadedModel:
    """A model with its weights. Its arrays may be donated."""

    config: Qwen2Config
    params: Params
    tokenizer: Tokenizer
    workdir: pathlib.Path | None
    step: int | None


def find_model(path: str | os.PathLike, weights_only: bool = False) -> FoundModel:
    """Finds a workdir's newest undamaged step, a given step, or a Hugging Face directory.

    The files of a step's parameters and meta are verified; damaged steps of a workdir are skipped.
    With `weights_only` a model without a tokenizer is found, too.

    Raises:
        FileNotFoundError: the path has no model, or the model has no tokenizer.
        ValueError: the given step is damaged.
    """
    path = as_path(path).absolute()
    if (path / CHECKPOINTS).is_dir():
        for step in sorted(finished_steps(path / CHECKPOINTS), reverse=True):
            try:
                return _find_step(path, step, weights_only)
            except Damaged as damage:
                _log.warning(f"checkpoint {step} of {path} is damaged ({damage}): skipped")
        raise FileNotFoundError(f"{path / CHECKPOINTS} has no finished and undamaged checkpoint")
    if path.parent.name == CHECKPOINTS and path.name.isdigit() and path.is_dir():
        try:
            return _find_step(path.parent.parent, int(path.name), weights_only)
        except Damaged as damage:
            raise ValueError(f"{path} is damaged ({damage}): give another step") from None
    if (path / "config.json").is_file():
        return FoundModel(read_config(path), _tokenizer(path, weights_only), path)
    raise FileNotFoundError(
        f"{path} is not a model: give a workdir, a step inside its checkpoints/, "
        "or a Hugging Face directory with a config.json"
    )


def load_model(
    path: str | os.PathLike, sharding: Sharding | None = None, dtype: Any = None
) -> LoadedModel:
    """Finds (see `find_model`) and loads a model, in its stored dtype unless another is given.

    Raises:
        FileNotFoundError: the path has no model.
        ValueError: the given step is damaged, or the weights do not fit the config.
    """
    found = find_model(path)
    params = load_weights(found, sharding, dtype)
    return LoadedModel(found.config, params, found.tokenizer, found.workdir, found.step)


def load_weights(found: FoundModel, sharding: Sharding | None = None, dtype: Any = None) -> Params:
    """Loads the parameters of a model, with its adapters merged in. They may be donated."""
    if found.step is None:
        return load_huggingface(found.directory, dtype, sharding)[1]
    if found.lora is not None:
        return _load_merged(found, sharding, dtype)
    return _restore(found, abstract_params(found.config, sharding), dtype)


def _load_merged(found: FoundModel, sharding: Sharding | None, dtype: Any) -> Params:
    """Loads the base and merges the adapters into it, in lora.base_dtype unless `dtype` is set."""
    kind = jax.numpy.dtype(found.lora.base_dtype)
    base = load_weights(found.base, sharding, kind)
    if dtype is not None:
        # Cast first, so that the sum with the adapters is not rounded to the base's dtype.
        base = jax.tree.map(lambda x: x.astype(dtype), base)

    def like(row: AdapterMatrix) -> jax.ShapeDtypeStruct:
        named = sharding and sharding.named(*row.logical_axes)
        return jax.ShapeDtypeStruct(row.shape(found.config), jax.numpy.float32, sharding=named)

    adapters = _restore(found, adapter_tree(found.config, found.lora, like), jax.numpy.float32)
    join = functools.partial(merge, found.config, found.lora)
    return jax.jit(join, donate_argnums=0)(base, adapters)


def _restore(found: FoundModel, wanted: Params, dtype: Any) -> Params:
    """Restores a step's parameters in the shapes and shardings of `wanted`."""
    stored = read_manifest(found.directory)["arrays"]
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def like(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        kind = jax.numpy.dtype(dtype or stored["params" + jax.tree_util.keystr(path)][0])
        return jax.ShapeDtypeStruct(leaf.shape, kind, sharding=leaf.sharding or device)

    return restore_params(found.directory, jax.tree_util.tree_map_with_path(like, wanted))


def adapter_meta(lora: LoraOptions, base: FoundModel) -> Meta:
    """The meta fields of a checkpoint with adapters: their options and their base model."""
    return {
        "lora": dataclasses.asdict(lora) | {"targets": list(lora.targets)},
        "base": str(base.directory),
    }


def fingerprint(found: FoundModel) -> str:
    """Computes a hash that changes with the weights, without reading them.

    It hashes the checksums of a step's files, or the names, sizes and times of a Hugging Face
    directory's.
    """
    if found.step is not None:
        text = json.dumps(read_manifest(found.directory), sort_keys=True)
        text += fingerprint(found.base) if found.base else ""
    else:
        files = sorted(found.directory.glob("*.safetensors"))
        stats = [(path.name, path.stat()) for path in files]
        text = json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _tokenizer(directory: pathlib.Path, optional: bool) -> Tokenizer | None:
    try:
        return load_tokenizer(directory)
    except FileNotFoundError as error:
        if optional:
            return None
        raise FileNotFoundError(
            f"{error}; without one, training needs tokenizer.path and export --weights_only"
        ) from None


def _find_step(workdir: pathlib.Path, step: int, weights_only: bool) -> FoundModel:
    directory = workdir / CHECKPOINTS / str(step)
    verify_files(directory, items=("params", "meta"))
    meta = read_meta(directory)
    tokenizer = _tokenizer(workdir / TOKENIZER, weights_only)
    found = FoundModel(Qwen2Config(**meta["model"]), tokenizer, directory, workdir, step, meta)
    if not meta.get("lora"):
        return found
    lora = LoraOptions(**meta["lora"] | {"targets": tuple(meta["lora"]["targets"])})
    try:
        # The adapters have a tokenizer of their own.
        base = find_model(meta["base"], weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{directory} has adapters of {meta['base']}, which does not exist: put it back"
        ) from None
    return dataclasses.replace(found, lora=lora, base=base)


def run_config(model: FoundModel | LoadedModel) -> dict[str, Any]:
    """The config of the run that trained a model; empty for a Hugging Face directory.

    Languages that it adds are known from then on.
    """
    if model.workdir is None or not (model.workdir / "config.json").exists():
        return {}
    config = json.loads((model.workdir / "config.json").read_text(encoding="utf-8"))
    add_config_languages(config)
    return config


def read_mesh(text: str | None) -> Sharding | None:
    """Creates the mesh of a --mesh flag such as "fsdp=2,tensor=4"; None (one device) without it.

    Raises:
        ValueError: an unknown axis, a size that is not a number, or a product that is not the
            number of devices.
    """
    if not text:
        return None
    axes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not size.removeprefix("-").isdigit():
            raise ValueError(
                f"--mesh={text}: {part!r} is not an axis with a size, such as tensor=4"
            )
        axes[name.strip()] = int(size)
    return Sharding(create_mesh(axes))


def create_engine(
    model: FoundModel | LoadedModel,
    end_ids: Sequence[int] = (),
    sharding: Sharding | None = None,
    max_length: int | None = None,
    drafts: int = 0,
) -> Engine:
    """Creates an engine with the maximum length, batch size and dtype of the model's run.

    Args:
        end_ids: tokens that end an answer, besides those that the model declares.
        sharding: the mesh and rules of the parameters; None for one device.
        max_length: of a row in tokens, by default the run's; at most max_position_embeddings.
        drafts: tokens that generation drafts per step, see `decoding.drafts`.
    """
    from marco_jax.decoding.engine import Engine
    from marco_jax.runtime.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    run = run_config(model)
    fields = run.get("evaluation", {})
    longest = max_length or fields.get("max_length", 4096)
    return Engine(
        model.config,
        model.tokenizer,
        dtype=jax.numpy.dtype(run.get("dtype", "float32")),
        max_length=min(longest, model.config.max_position_embeddings),
        tokens_per_batch=fields.get("tokens_per_batch", 8192),
        end_ids=end_ids,
        sharding=sharding,
        drafts=drafts,
    )
