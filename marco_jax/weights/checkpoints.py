"""Checkpoints on disk: the one module that touches Orbax.

A checkpoint step holds three items: `params`, `optimizer` and `meta` (JSON: the model's config,
the step, what the run needs to go on), and a manifest of their files and arrays. Orbax writes them
under a temporary name, the manifest is made of what is there, and the rename makes the step.
Parameters can be read without the optimizer.
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
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from marco_jax.files import write_json
from marco_jax.model.parameters import Params, parameter_table, parameter_tree
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.processes import agree, together
from marco_jax.weights.manifest import (
    Checksums,
    Damaged,
    check_arrays,
    checksums,
    describe_arrays,
    files_below,
    verify_files,
    write_manifest,
)
from marco_jax.weights.recovery import TEMPORARY, finished_steps, set_aside, settle

CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
# Says that a checkpoint was finished once: with none left, a run must not start from zero.
SAVED = "saved.json"
# Where a process leaves the checksums of what it has written, for the first one to collect.
_PART = "manifest.{}.part"

FIGURES = "figures"

Meta = dict[str, Any]
# By name: "params" and "optimizer", pytrees.
Arrays = dict[str, Any]


class Checkpoints:
    """The checkpoints of a workdir: asynchronous saves, kept by policy, verified before use."""

    def __init__(self, workdir: str | os.PathLike, policy: ConfigDict | None = None) -> None:
        """Opens (and creates) `workdir`/checkpoints; one run at a time may.

        A save that was cut before its rename is finished if all of it is there, else removed.

        Args:
            workdir: of the run.
            policy: `config.checkpoint`; without it all steps are kept.

        Raises:
            ValueError: fields of the policy that do not fit together.
        """
        self._workdir = pathlib.Path(workdir).absolute()
        self._directory = self._workdir / CHECKPOINTS
        self._directory.mkdir(parents=True, exist_ok=True)
        self._preservation = _preservation(policy)
        self._manager: ocp.CheckpointManager | None = None
        self._saving: tuple[int, dict[str, list]] = (0, {})
        _say_failures_once()
        if jax.process_index() == 0:
            settle(self._directory)
        together("settled")

    def latest(self) -> int | None:
        """The newest finished step, or None."""
        return max(finished_steps(self._directory), default=None)

    def restore_newest(
        self, like: Arrays, check: Callable[[Meta], None]
    ) -> tuple[Arrays, Meta] | None:
        """The newest step that is whole, in the shapes, dtypes and shardings of `like`.

        A damaged one is said, moved to `workdir`/damaged, and the one before is taken.

        Args:
            like: ShapeDtypeStructs.
            check: raises for the meta of a run that this one cannot go on with.

        Returns:
            the arrays and their meta; None where no checkpoint has ever been finished.

        Raises:
            RunFailed: there were checkpoints, and none is whole.
            ValueError: the arrays of the newest whole one are not those of `like`.
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
                together(f"aside {step}")
                continue
            meta = read_meta(directory)
            check(meta)
            check_arrays(directory, like)
            return self._restore(step, like), meta
        if steps or (self._workdir / SAVED).exists():
            raise RunFailed(
                f"{self._workdir} has had checkpoints and none is left that is whole: "
                "put one back from a copy, or start in a new workdir"
            )
        return None

    def save(self, step: int, arrays: Arrays, config: Qwen2Config, meta: Meta) -> None:
        """Starts saving a step; returns once the arrays may be overwritten.

        `meta` is JSON; its FIGURES, by name, are those that `keep_best` goes by.

        Raises:
            RunFailed: this save cannot start, or the one before has failed since.
        """
        self.wait()
        if step in finished_steps(self._directory):
            return
        with self._failures(step):
            about = {"step": step, "model": dataclasses.asdict(config)}
            self._saving = (step, describe_arrays(arrays))
            # Parameters are cut by layer, so that an export need not read all layers at once.
            cut = jax.tree_util.tree_map_with_path(
                lambda path, _: ocp.SaveArgs(shard_axes=(0,) * (path[0].key == "layers")),
                arrays["params"],
            )
            arguments = {
                "params": ocp.args.StandardSave(arrays["params"], save_args=cut),
                "optimizer": ocp.args.StandardSave(arrays["optimizer"]),
            }
            arguments["meta"] = ocp.args.JsonSave(about | meta)
            composite = ocp.args.Composite(**arguments)
            self._open().save(step, args=composite, metrics=meta.get(FIGURES) or None)

    def wait(self) -> None:
        """Blocks until every save has reached the disk.

        Raises:
            RunFailed: one has not.
        """
        with self._failures(self._saving[0]):
            self._open().wait_until_finished()

    def close(self) -> None:
        """Waits for saves and frees the manager's threads."""
        if self._manager:
            with self._failures(self._saving[0]):
                self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        """Orbax's manager: it looks at the steps once, so it is made when only whole ones are."""
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._preservation,
                async_options=ocp.AsyncOptions(
                    # Between the last write of this process, and of all, and the rename.
                    barrier_sync_fn=self._checksum_own,
                    post_finalization_callback=self._write_manifest,
                ),
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        return self._manager

    def _restore(self, step: int, like: Arrays) -> Arrays:
        items = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        read = self._open().restore(step, args=ocp.args.Composite(**items))
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        # Restored buffers cannot always be donated: a jitted copy can (it frees the first).
        copy = jax.jit(lambda tree: tree, out_shardings=shardings)
        return copy({name: read[name] for name in like})

    def _temporary(self) -> pathlib.Path:
        return self._directory / f"{self._saving[0]}{TEMPORARY}"

    def _checksum_own(self, *, key: str, timeout_ms: int) -> None:
        """A barrier; at the end of a write, after the checksums of this process's files."""
        if "async_write_complete" in key:
            directory, process = self._temporary(), jax.process_index()
            own = [name for name in files_below(directory) if f"/ocdbt.process_{process}/" in name]
            part = directory / _PART.format(process)
            # Items lose their temporary names on the way to their last.
            found = checksums(directory, own)
            part.write_text(json.dumps({k.replace(TEMPORARY, ""): v for k, v in found.items()}))
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

    def _write_manifest(self) -> None:
        """On the first process, when all have written: the manifest, just before the rename."""
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
        """Turns whatever goes wrong in a save into one line; the steps before stay as they are."""
        try:
            yield
        except Exception as error:
            if jax.process_index() == 0:
                shutil.rmtree(self._temporary(), ignore_errors=True)
            saved = [other for other in finished_steps(self._directory) if other != step]
            raise RunFailed(
                f"checkpoint {step} could not be saved in {self._directory}: {_reason(error)}; the "
                f"newest whole one is {max(saved, default='none')}: make room, start again"
            ) from error


def restore_params(step: pathlib.Path, like: Params) -> Params:
    """The parameters of a step in the shapes, dtypes and shardings of `like`; may be donated."""
    with ocp.StandardCheckpointer() as reader:
        params = reader.restore(step / "params", like)

    def own(leaf: jax.Array) -> jax.Array:
        # Restored buffers cannot always be donated: a jitted copy can, and the first goes at once.
        copy = jax.jit(jax.numpy.copy, out_shardings=leaf.sharding)(leaf)
        jax.block_until_ready(copy)
        leaf.delete()
        return copy

    return jax.tree.map(own, params)


def begin_step(workdir: pathlib.Path, config: Qwen2Config) -> pathlib.Path:
    """Makes step 0 of a workdir, all but its parameters, which are written piece by piece.

    Returns:
        the step; an `ArrayWriter` takes its params/, and `finish_step` ends it.
    """
    small = parameter_tree(config, lambda row: np.zeros((1,), np.float32))
    with ocp.CheckpointManager(workdir / CHECKPOINTS) as manager:
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(small),
            meta=ocp.args.JsonSave({"step": 0, "model": dataclasses.asdict(config)}),
        )
        manager.save(0, args=items)
    step = workdir / CHECKPOINTS / "0"
    # Orbax's own account of the tree stays, its arrays go.
    path = step / "params" / "_METADATA"
    account = json.loads(path.read_text(encoding="utf-8"))
    rows = {tuple(row.path.split("/")): row for row in parameter_table(config)}
    for leaf in account["tree_metadata"].values():
        row = rows[tuple(key["key"] for key in leaf["key_metadata"])]
        leaf["value_metadata"]["write_shape"] = list(row.shape(config))
        leaf["value_metadata"]["value_type"] = "jax.Array"
    shutil.rmtree(step / "params")
    path.parent.mkdir()
    write_json(path, account)
    return step


def finish_step(step: pathlib.Path, dtypes: Mapping[str, Any]) -> None:
    """Writes the manifest of a step whose parameters are all there; dtypes are by their paths."""
    config = Qwen2Config(**read_meta(step)["model"])
    like = parameter_tree(
        config, lambda row: jax.ShapeDtypeStruct(row.shape(config), dtypes[row.path])
    )
    files = checksums(step, files_below(step))
    write_manifest(step, files, describe_arrays({"params": like}))


def read_meta(directory: pathlib.Path) -> Meta:
    """What a step holds besides its arrays."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return reader.restore(directory / "meta")


def _preservation(policy: ConfigDict | None) -> Any:
    """Orbax's form of `config.checkpoint`; None keeps all."""
    if policy is None or not (policy.keep or policy.keep_every or policy.keep_best):
        return None
    kinds = ocp.checkpoint_managers
    if policy.keep < 1:
        raise ValueError(
            f"checkpoint.keep is {policy.keep}, which keeps every step: checkpoint.keep_every and "
            "keep_best say what stays besides the newest, so give it 1 or more"
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
def _say_failures_once() -> None:
    """Leaves a failed save to the line that ends the run.

    Orbax logs its traceback, and the writes that it has started complain of a closed event loop.
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
    """The innermost cause, in a line: of a refused write what the system said."""
    while error.__cause__ is not None:
        error = error.__cause__
    text, _, _ = " ".join(str(error).split()).partition(" [os_error_code")
    # TensorStore puts a whole specification around what the system said.
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EIO):
        if (said := os.strerror(code)) in text:
            return said
    return text if len(text) < 150 else text.rpartition(": ")[2][-150:]
