"""Checkpoints on disk: the one module that touches Orbax.

A checkpoint step holds three items: `params`, `optimizer` and `meta` (JSON: the model's config,
the step, what the run needs to go on), and a manifest of their files and arrays. Orbax writes them
under a temporary name, the manifest is made of what is there, and the rename makes the step.
Parameters can be read without the optimizer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from marco_jax.model.config import Qwen2Config
from marco_jax.model.huggingface import load_huggingface
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import abstract_params
from marco_jax.tokenizer import Tokenizer, load_tokenizer
from marco_jax.training import guard
from marco_jax.training.faults import RunFailed
from marco_jax.training.manifest import (
    Checksums,
    Damaged,
    check_arrays,
    checksums,
    describe_arrays,
    files_below,
    verify_files,
    write_manifest,
)
from marco_jax.training.processes import agree, say, together
from marco_jax.training.recovery import TEMPORARY, finished_steps, set_aside, settle
from marco_jax.training.step import TrainState

CHECKPOINTS = "checkpoints"
TOKENIZER = "tokenizer"
DAMAGED = "damaged"
# Says that a checkpoint was finished once: with none left, a run must not start from zero.
SAVED = "saved.json"
# Where a process leaves the checksums of what it has written, for the first one to collect.
_PART = "manifest.{}.part"

FIGURES = "figures"

Meta = dict[str, Any]


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
        self, like: TrainState, check: Callable[[Meta], None], options: guard.GuardOptions
    ) -> tuple[TrainState, Meta] | None:
        """The newest step that is whole, in the shapes, dtypes and shardings of `like`.

        A damaged one is said, moved to `workdir`/damaged, and the one before is taken.

        Args:
            like: ShapeDtypeStructs.
            check: raises for the meta of a run that this one cannot go on with.
            options: of the guard that the state carries.

        Returns:
            the state and its meta; None where no checkpoint has ever been finished.

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
            meta = _read_meta(directory)
            check(meta)
            check_arrays(directory, {"params": like.params, "optimizer": like.optimizer})
            return self._restore(step, like, meta, options), meta
        if steps or (self._workdir / SAVED).exists():
            raise RunFailed(
                f"{self._workdir} has had checkpoints and none is left that is whole: "
                "put one back from a copy, or start in a new workdir"
            )
        return None

    def save(self, state: TrainState, config: Qwen2Config, meta: Meta) -> None:
        """Starts saving; returns once the arrays may be overwritten.

        `meta` is JSON; its FIGURES, by name, are those that `keep_best` goes by.

        Raises:
            RunFailed: this save cannot start, or the one before has failed since.
        """
        step = int(state.step)
        self.wait()
        if step in finished_steps(self._directory):
            return
        with self._failures(step):
            items = {"params": state.params, "optimizer": state.optimizer}
            about = {
                "step": step,
                "model": dataclasses.asdict(config),
                "guard": guard.to_json(state.guard),
            }
            self._saving = (step, describe_arrays(items))
            arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
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

    def _restore(
        self, step: int, like: TrainState, meta: Meta, options: guard.GuardOptions
    ) -> TrainState:
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(like.params),
            optimizer=ocp.args.StandardRestore(like.optimizer),
        )
        read = self._open().restore(step, args=items)
        state = TrainState(
            jax.numpy.int32(step),
            read.params,
            read.optimizer,
            guard.from_json(meta.get("guard"), options),
        )
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        # Restored buffers cannot always be donated: a jitted copy can (it frees the first).
        return jax.jit(lambda tree: tree, out_shardings=shardings)(state)

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

    The files that are read are verified first; a damaged newest step is passed over.

    Raises:
        FileNotFoundError: nothing there that could be loaded.
        ValueError: the step that is asked for is damaged.
    """
    path = pathlib.Path(path).absolute()
    if (path / CHECKPOINTS).is_dir():
        for step in sorted(finished_steps(path / CHECKPOINTS), reverse=True):
            try:
                return _load_step(path, step, sharding)
            except Damaged as damage:
                say(f"warning: checkpoint {step} of {path} is damaged ({damage}): passed over")
        raise FileNotFoundError(f"{path / CHECKPOINTS} holds no finished checkpoint that is whole")
    if path.parent.name == CHECKPOINTS and path.name.isdigit() and path.is_dir():
        try:
            return _load_step(path.parent.parent, int(path.name), sharding)
        except Damaged as damage:
            raise ValueError(f"{path} is damaged ({damage}): give another step") from None
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
        step = partial / CHECKPOINTS / "0"
        files = checksums(step, files_below(step))
        write_manifest(step, files, describe_arrays({"params": loaded.params}))
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _load_step(workdir: pathlib.Path, step: int, sharding: Sharding | None) -> LoadedModel:
    directory = workdir / CHECKPOINTS / str(step)
    verify_files(directory, items=("params", "meta"))
    config = Qwen2Config(**_read_meta(directory)["model"])
    like = abstract_params(config, sharding)
    if sharding is None:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    with ocp.StandardCheckpointer() as reader:
        params = reader.restore(directory / "params", like)
    return LoadedModel(config, params, load_tokenizer(workdir / TOKENIZER), workdir, step)


def _read_meta(directory: pathlib.Path) -> Meta:
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
    return text if len(text) < 150 else text.rpartition(": ")[2][-150:]


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file in one piece: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
