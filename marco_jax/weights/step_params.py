"""The parameters of a checkpoint step: read alone, and written piece by piece by an import."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from marco_jax.files import write_json
from marco_jax.model.parameters import Params, parameter_table, parameter_tree
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.weights.checkpoints import CHECKPOINTS, read_meta
from marco_jax.weights.manifest import checksums, describe_arrays, files_below, write_manifest


def restore_params(step: pathlib.Path, like: Params) -> Params:
    """Restores a step's parameters with the shapes, dtypes and shardings of `like`.

    The arrays may be donated.
    """
    with ocp.StandardCheckpointer() as reader:
        params = reader.restore(step / "params", like)

    def own(leaf: jax.Array) -> jax.Array:
        # Restored buffers cannot always be donated, but jitted copies can.
        copy = jax.jit(jax.numpy.copy, out_shardings=leaf.sharding)(leaf)
        jax.block_until_ready(copy)
        leaf.delete()
        return copy

    return jax.tree.map(own, params)


def begin_step(workdir: pathlib.Path, config: Qwen2Config) -> pathlib.Path:
    """Creates step 0 of a workdir without its parameters, for an `ArrayWriter` to write them.

    Orbax saves a tree of small arrays. Then its description of the tree gets the real shapes, and
    the arrays are deleted, so that Orbax later reads the files of the `ArrayWriter` as its own.

    Returns:
        the step; write parameters into its params/, then call `finish_step`.
    """
    small = parameter_tree(config, lambda row: np.zeros((1,), np.float32))
    with ocp.CheckpointManager(workdir / CHECKPOINTS) as manager:
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(small),
            meta=ocp.args.JsonSave({"step": 0, "model": dataclasses.asdict(config)}),
        )
        manager.save(0, args=items)
    step = workdir / CHECKPOINTS / "0"
    path = step / "params" / "_METADATA"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    rows = {tuple(row.path.split("/")): row for row in parameter_table(config)}
    for leaf in metadata["tree_metadata"].values():
        row = rows[tuple(key["key"] for key in leaf["key_metadata"])]
        leaf["value_metadata"]["write_shape"] = list(row.shape(config))
        leaf["value_metadata"]["value_type"] = "jax.Array"
    shutil.rmtree(step / "params")
    path.parent.mkdir()
    write_json(path, metadata)
    return step


def finish_step(step: pathlib.Path, dtypes: Mapping[str, Any]) -> None:
    """Writes the manifest of a step once its parameters are written; dtypes are by path."""
    config = Qwen2Config(**read_meta(step)["model"])
    like = parameter_tree(
        config, lambda row: jax.ShapeDtypeStruct(row.shape(config), dtypes[row.path])
    )
    files = checksums(step, files_below(step))
    write_manifest(step, files, describe_arrays({"params": like}))
