"""TensorBoard always, and Weights & Biases when asked: metrics besides metrics.jsonl."""

from __future__ import annotations

import math
import pathlib
import tempfile
from typing import Any

import tensorboardX
from ml_collections import ConfigDict

from marco_jax.extras import optional
from marco_jax.files import is_remote
from marco_jax.stores.objects import upload


class Boards:
    """Writes scalars, in the first process only."""

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, *, first: bool) -> None:
        """Opens the boards.

        Args:
            workdir: has TensorBoard's files, and gives the Weights & Biases run its name.
            config: of the run; `wandb.project` asks for Weights & Biases.
            first: whether this is the first process.

        Raises:
            MissingExtra: wandb is asked for and not installed.
        """
        self._folder = workdir / "tensorboard"
        # TensorBoard appends to its files: those of an object store are uploaded as they are.
        self._local = tempfile.TemporaryDirectory() if first and is_remote(workdir) else None
        self._tensorboard = tensorboardX.SummaryWriter(
            self._local.name if self._local else str(self._folder),
            flush_secs=30,
            write_to_disk=first,
        )
        self._wandb: Any = None
        self._step, self._waiting = 0, {}
        if config.wandb.project and first:
            self._wandb = _start(workdir, config)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Writes one metric of a step."""
        self._tensorboard.add_scalar(name, value, step)
        if self._wandb is None or not math.isfinite(value):
            return
        if step != self._step:
            self._send()
            self._step = step
        self._waiting[name] = value

    def sync(self) -> None:
        """Uploads TensorBoard's files to an object store."""
        if self._local:
            self._tensorboard.flush()
            for file in pathlib.Path(self._local.name).iterdir():
                upload(file, self._folder / file.name)

    def close(self) -> None:
        """Writes what is left."""
        self._tensorboard.close()
        self.sync()
        if self._wandb is not None:
            self._send()
            self._wandb.finish()

    def _send(self) -> None:
        if self._waiting:
            self._wandb.log(self._waiting, step=self._step)
            self._waiting = {}


def _start(workdir: pathlib.Path, config: ConfigDict) -> Any:
    with optional(f"wandb.project={config.wandb.project!r}"):
        import wandb
    # A restart continues the same run.
    name = config.wandb.name or workdir.resolve().name
    return wandb.init(
        project=config.wandb.project,
        name=name,
        id=name,
        resume="allow",
        dir=None if is_remote(workdir) else str(workdir),
        config=config.to_dict(),
    )
