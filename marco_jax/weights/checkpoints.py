"""Checkpoints on disk, written and read with Orbax (this module is its only user).

A checkpoint step has three items: `params`, `optimizer` and `meta` (JSON: the model's config, the
step, and whatever a run needs to resume), and a manifest of their files and arrays. Parameters can
be read without the optimizer.

Orbax saves in the background: all processes write their shards into a directory with a temporary
name, which the first process renames when all have finished. Two hooks add the manifest. The first
replaces Orbax's barrier: when a process has written its files, it reads them back, leaves their
checksums in a part file, and only then enters the barrier. The second runs on the first process
after the barrier and before the rename: it joins the part files, computes the checksums of the
remaining files, and writes the manifest. A directory with its final name therefore always has a
complete manifest, and one with a temporary name is finished or removed when a run starts
(`manifest.settle`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from marco_jax.files import as_path, is_remote, remove_tree, write_json
from marco_jax.model.parameters import Params, parameter_table, parameter_tree
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.device_memory import are_large_on_cpu
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.processes import agree, barrier
from marco_jax.weights.manifest import (
    TEMPORARY,
    Checksums,
    Damaged,
    check_arrays,
    checksums,
    describe_arrays,
    files_below,
    finished_steps,
    set_aside,
    settle,
    verify_files,
    write_manifest,
)
from marco_jax.weights.orbax_stores import orbax_path, temporary_path_class

CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
# Exists once a checkpoint was finished. A run with this file but without checkpoints must fail
# rather than start from step 0.
SAVED = "saved.json"
# The checksums of the files that one process has written, until the manifest is.
_PART = "manifest.{}.part"

# The field of `meta` with the metrics that `keep_best` compares.
METRICS = "metrics"

Meta = dict[str, Any]
# Pytrees by name: "params" and "optimizer".
Arrays = dict[str, Any]


class Checkpoints:
    """The checkpoints of a workdir: saves them in the background and verifies them before use."""

    def __init__(self, workdir: str | os.PathLike, policy: ConfigDict | None = None) -> None:
        """Opens (and creates) `workdir`/checkpoints, for one run at a time.

        A save that was interrupted before its rename is finished if complete, else removed.

        `policy` is `config.checkpoint`, which steps to keep; without it all are kept.

        Raises:
            ValueError: fields of the policy that do not fit together.
        """
        self._workdir = as_path(workdir).absolute()
        self._directory = self._workdir / CHECKPOINTS
        self._directory.mkdir(parents=True, exist_ok=True)
        self._preservation = _preservation(policy)
        self._manager: ocp.CheckpointManager | None = None
        self._saving: tuple[int, dict[str, list]] = (0, {})
        _silence_orbax_errors()
        if jax.process_index() == 0:
            settle(self._directory)
        barrier("settled")

    def latest(self) -> int | None:
        """The newest finished step, or None."""
        return max(finished_steps(self._directory), default=None)

    def restore_newest(
        self, like: Arrays, check: Callable[[Meta], None]
    ) -> tuple[Arrays, Meta] | None:
        """Restores the newest undamaged step, in the shapes, dtypes and shardings of `like`.

        Damaged steps are logged and moved to `workdir`/damaged, and the step before is taken.
        `check` raises if this run cannot resume from a step with the given meta.

        Returns:
            the arrays and their meta; None if no checkpoint was ever finished.

        Raises:
            RunFailed: there were checkpoints, but all are damaged or gone.
            ValueError: the arrays of the newest undamaged step are not those of `like`.
        """
        steps = sorted(finished_steps(self._directory), reverse=True)
        share = (jax.process_index(), jax.process_count())
        for step in steps:
            directory, problem = self._directory / str(step), ""
            try:
                verify_files(directory, share=share)
            except Damaged as damage:
                problem = str(damage)
            if problem := agree(problem):
                if jax.process_index() == 0:
                    set_aside(directory, self._workdir / DAMAGED, problem)
                barrier(f"aside {step}")
                continue
            meta = read_meta(directory)
            check(meta)
            check_arrays(directory, like)
            return self._restore(step, like), meta
        if steps or (self._workdir / SAVED).exists():
            raise RunFailed(
                f"{self._workdir} had checkpoints, but all are damaged or gone: restore one from a "
                "copy, or start in a new workdir"
            )
        return None

    def save(self, step: int, arrays: Arrays, config: Qwen2Config, meta: Meta) -> None:
        """Starts saving a step; returns once the arrays may be overwritten.

        Where arrays that a CPU computes on take much of its memory, it returns once they are
        written: the copy that is written would not fit beside the next step.

        `meta` is JSON; its field METRICS has the metrics that `keep_best` compares, by name.

        Raises:
            RunFailed: this save cannot start, or the one before has failed.
        """
        self.wait()
        if step in finished_steps(self._directory):
            return
        with self._failures(step):
            self._saving = (step, describe_arrays(arrays))
            # Chunks do not span layers, so that an export need not read all layers at once.
            by_layer = jax.tree_util.tree_map_with_path(
                lambda path, _: ocp.SaveArgs(shard_axes=(0,) * (path[0].key == "layers")),
                arrays["params"],
            )
            items = ocp.args.Composite(
                params=ocp.args.StandardSave(arrays["params"], save_args=by_layer),
                optimizer=ocp.args.StandardSave(arrays["optimizer"]),
                meta=ocp.args.JsonSave({"step": step, "model": dataclasses.asdict(config)} | meta),
            )
            self._open().save(step, args=items, metrics=meta.get(METRICS) or None)
        if are_large_on_cpu(arrays):
            self.wait()

    def wait(self) -> None:
        """Blocks until every save has finished.

        Raises:
            RunFailed: a save has failed.
        """
        with self._failures(self._saving[0]):
            self._open().wait_until_finished()

    def close(self) -> None:
        """Waits for saves and frees the manager's threads."""
        if self._manager:
            with self._failures(self._saving[0]):
                self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        """Creates Orbax's manager once damaged steps are gone, since it lists steps only once."""
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._preservation,
                temporary_path_class=temporary_path_class(self._directory),
                async_options=ocp.AsyncOptions(
                    # After the last write of this process; after the last of all processes.
                    barrier_sync_fn=self._checksum_own,
                    post_finalization_callback=self._write_manifest,
                ),
            )
            self._manager = ocp.CheckpointManager(orbax_path(self._directory), options=options)
        return self._manager

    def _restore(self, step: int, like: Arrays) -> Arrays:
        items = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        read = self._open().restore(step, args=ocp.args.Composite(**items))
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        # Restored buffers cannot always be donated, but jitted copies can.
        copy = jax.jit(lambda tree: tree, out_shardings=shardings)
        return copy({name: read[name] for name in like})

    def _temporary(self) -> pathlib.Path:
        step = str(self._saving[0])
        return self._directory / (step if is_remote(self._directory) else f"{step}{TEMPORARY}")

    def _checksum_own(self, *, key: str, timeout_ms: int) -> None:
        """Orbax's barrier; before the one that ends a write, saves checksums of own files."""
        if "async_write_complete" in key:
            directory, process = self._temporary(), jax.process_index()
            own = [name for name in files_below(directory) if f"/ocdbt.process_{process}/" in name]
            part = directory / _PART.format(process)
            # Orbax renames the items' temporary directories before it calls _write_manifest.
            found = checksums(directory, own)
            part.write_text(json.dumps({k.replace(TEMPORARY, ""): v for k, v in found.items()}))
        # Some of Orbax's keys are the same in all managers, and several runs may save at once.
        key = f"{self._workdir.name}:{key}"
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

    def _write_manifest(self) -> None:
        """Writes the manifest; runs on the first process after all writes, before the rename."""
        directory, known = self._temporary(), Checksums()
        for part in directory.glob(_PART.format("*")):
            known |= json.loads(part.read_text())
            part.unlink()
        names = files_below(directory)
        known |= checksums(directory, set(names) - set(known))
        write_manifest(directory, {name: known[name] for name in names}, self._saving[1])
        write_json(self._workdir / SAVED, {"step": self._saving[0]})

    @contextlib.contextmanager
    def _failures(self, step: int) -> Iterator[None]:
        """Turns any error of a save into a RunFailed, and removes what was written of the step."""
        try:
            yield
        except Exception as error:
            if jax.process_index() == 0:
                remove_tree(self._temporary(), ignore_errors=True)
            saved = [other for other in finished_steps(self._directory) if other != step]
            raise RunFailed(
                f"checkpoint {step} could not be saved in {self._directory}: {_reason(error)}; the "
                f"newest complete one is {max(saved, default='none')}: make room, start again"
            ) from error


def read_meta(directory: pathlib.Path) -> Meta:
    """Reads the `meta` item of a step; fields of the model that it does not have get defaults."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        meta = reader.restore(orbax_path(directory / "meta"))
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(Qwen2Config)
        if field.default is not dataclasses.MISSING
    }
    return meta | {"model": defaults | meta["model"]}


def _preservation(policy: ConfigDict | None) -> Any:
    """Converts `config.checkpoint` to Orbax's preservation policy; None keeps all steps."""
    if policy is None or not (policy.keep or policy.keep_every or policy.keep_best):
        return None
    kinds = ocp.checkpoint_managers
    if policy.keep < 1:
        raise ValueError(
            f"checkpoint.keep is {policy.keep}, which keeps every step: with checkpoint.keep_every "
            "or keep_best set it to 1 or more"
        )
    policies = [kinds.LatestN(policy.keep)]
    if policy.keep_every:
        policies.append(kinds.EveryNSteps(policy.keep_every))
    if policy.keep_best:
        name = policy.keep_best.removeprefix("-")
        lower = policy.keep_best.startswith("-")
        policies.append(
            kinds.BestN(
                get_metric_fn=lambda metrics: metrics.get(name, float("inf" if lower else "-inf")),
                reverse=lower,
                n=1,
                keep_checkpoints_without_metrics=False,
            )
        )
    return kinds.AnyPreservationPolicy(policies)


@functools.cache
def _silence_orbax_errors() -> None:
    """Suppresses what Orbax prints about a failed save, which RunFailed reports in one line.

    Orbax logs a traceback, and its pending writes raise errors about a closed event loop.
    """
    logging.getLogger("absl").addFilter(
        lambda record: "orbax" not in record.pathname or record.levelno < logging.WARNING
    )
    before = sys.unraisablehook

    def hook(event: Any) -> None:
        if str(event.exc_value) != "Event loop is closed":
            before(event)

    sys.unraisablehook = hook


def _reason(error: BaseException) -> str:
    """The innermost cause in one line; for a failed write the system's message."""
    while error.__cause__ is not None:
        error = error.__cause__
    text, _, _ = " ".join(str(error).split()).partition(" [os_error_code")
    # TensorStore puts a whole specification around the system's message.
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EIO):
        if (message := os.strerror(code)) in text:
            return message
    return text if len(text) < 150 else text.rpartition(": ")[2][-150:]


def restore_params(step: pathlib.Path, like: Params) -> Params:
    """Restores a step's parameters with the shapes, dtypes and shardings of `like`.

    The arrays may be donated.
    """
    with ocp.StandardCheckpointer() as reader:
        params = reader.restore(orbax_path(step / "params"), like)

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
    steps = workdir / CHECKPOINTS
    options = ocp.CheckpointManagerOptions(temporary_path_class=temporary_path_class(steps))
    with ocp.CheckpointManager(orbax_path(steps), options=options) as manager:
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
    remove_tree(step / "params")
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
