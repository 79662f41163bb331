"""Checkpoints on disk: the one module that touches Orbax.

A checkpoint step holds three items: `params`, `optimizer` and `meta` (JSON: the model's config,
the step, what the run needs to go on). Parameters can be read without the optimizer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp

from marco_jax.model.config import Qwen2Config
from marco_jax.model.huggingface import load_huggingface
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import abstract_params
from marco_jax.tokenizer import Tokenizer, load_tokenizer
from marco_jax.training.step import TrainState

CHECKPOINTS = "checkpoints"
TOKENIZER = "tokenizer"


class Checkpoints:
    """The checkpoints of a workdir: asynchronous saves, the newest `keep` are kept."""

    def __init__(self, workdir: str | os.PathLike, keep: int | None = None) -> None:
        """Opens (and creates) `workdir`/checkpoints."""
        directory = pathlib.Path(workdir).absolute() / CHECKPOINTS
        directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(directory, options=options)

    def latest(self) -> int | None:
        """The newest finished step, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, config: Qwen2Config, meta: dict[str, Any]) -> None:
        """Starts saving; returns once the arrays may be overwritten."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            optimizer=ocp.args.StandardSave(state.optimizer),
            meta=ocp.args.JsonSave({"step": step, "model": dataclasses.asdict(config), **meta}),
        )
        self._manager.save(step, args=items)

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads a step into the shapes, dtypes and shardings of `like`."""
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(like.params),
            optimizer=ocp.args.StandardRestore(like.optimizer),
            meta=ocp.args.JsonRestore(),
        )
        read = self._manager.restore(step, args=items)
        state = TrainState(jax.numpy.int32(read.meta["step"]), read.params, read.optimizer)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        # Restored buffers cannot always be donated: a jitted copy can (it frees the first).
        return jax.jit(lambda tree: tree, out_shardings=shardings)(state), read.meta

    def wait(self) -> None:
        """Blocks until every save has reached the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and frees the manager's threads."""
        self._manager.wait_until_finished()
        self._manager.close()


@dataclasses.dataclass
class LoadedModel:
    """A model from `--model=PATH`, wherever it came from."""

    config: Qwen2Config
    params: Params
    tokenizer: Tokenizer
    workdir: pathlib.Path | None
    step: int | None


def load_model(path: str | os.PathLike, sharding: Sharding | None = None) -> LoadedModel:
    """Loads a workdir (its newest step), a checkpoint step inside one, or a Hugging Face directory.

    Raises:
        FileNotFoundError: nothing there that could be loaded.
    """
    path = pathlib.Path(path).absolute()
    if (path / CHECKPOINTS).is_dir():
        steps = [int(p.name) for p in (path / CHECKPOINTS).iterdir() if p.name.isdigit()]
        if not steps:
            raise FileNotFoundError(f"{path / CHECKPOINTS} holds no finished checkpoint yet")
        return _load_step(path, max(steps), sharding)
    if path.parent.name == CHECKPOINTS and path.name.isdigit() and path.is_dir():
        return _load_step(path.parent.parent, int(path.name), sharding)
    if (path / "config.json").is_file():
        config, params = load_huggingface(path, sharding=sharding)
        return LoadedModel(config, params, load_tokenizer(path), None, None)
    raise FileNotFoundError(
        f"{path} is no model: give a workdir, a step inside its checkpoints/, "
        "or a Hugging Face directory with a config.json"
    )


def save_model(out: str | os.PathLike, loaded: LoadedModel) -> None:
    """Writes a directory that `load_model` reads: one checkpoint step without an optimizer.

    Raises:
        FileExistsError: `out` is there already.
    """
    out = pathlib.Path(out).absolute()
    if out.exists():
        raise FileExistsError(f"{out} exists: give a new directory")
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        loaded.tokenizer.save(partial / TOKENIZER)
        manager = ocp.CheckpointManager(partial / CHECKPOINTS)
        meta = {"step": 0, "model": dataclasses.asdict(loaded.config)}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(loaded.params), meta=ocp.args.JsonSave(meta)
        )
        manager.save(0, args=items)
        manager.close()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _load_step(workdir: pathlib.Path, step: int, sharding: Sharding | None) -> LoadedModel:
    directory = workdir / CHECKPOINTS / str(step)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        meta = reader.restore(directory / "meta")
    config = Qwen2Config(**meta["model"])
    like = abstract_params(config, sharding)
    if sharding is None:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    with ocp.StandardCheckpointer() as reader:
        params = reader.restore(directory / "params", like)
    return LoadedModel(config, params, load_tokenizer(workdir / TOKENIZER), workdir, step)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file in one piece: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
