"""TensorBoard: event files in the workdir's tensorboard/, and hyperparameters among them."""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import hparams, scalar

from marco_jax.files import is_remote
from marco_jax.stores.objects import upload
from marco_jax.trackers.tracker import Tracker, flat_config

# The metric beside which TensorBoard's table of hyperparameters shows runs.
_SHOWN = "train/loss"


class TensorBoardTracker(Tracker):
    """Writes event files, which TensorBoard reads while the run goes on.

    Every attempt of a run has a file of its own. It begins with the step that is taken first, and
    TensorBoard hides what earlier files have of that step and later ones: steps that are repeated
    are shown once.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], step: int) -> None:
        """Opens a new file in `workdir`/tensorboard; see Tracker for the arguments."""
        self._folder = workdir / "tensorboard"
        # Event files are appended to: those of an object store are uploaded as they are.
        self._local = tempfile.TemporaryDirectory() if is_remote(workdir) else None
        folder = pathlib.Path(self._local.name) if self._local else self._folder
        folder.mkdir(parents=True, exist_ok=True)
        # SummaryWriter has a queue that its flush does not wait for. The name of a file has the
        # second; of two that begin after the same step in one second, the first is hidden anyway.
        self._writer = EventsWriter(str(folder / "events"), f".{step}")
        # At the first start, the evaluation before the first step is repeated, too.
        first = step + 1 if step else 0
        self._write(first, session_log=SessionLog(status=SessionLog.START))
        # SummaryWriter.add_hparams would make a run of its own for them, in a folder below.
        experiment, session, _ = hparams(flat_config(config), {_SHOWN: 0.0})
        for summary in (experiment, session):
            self._write(0, summary=summary)
        self._writer.flush()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a scalar for each metric."""
        for name, value in metrics.items():
            self._write(step, summary=scalar(name, value))
        self._writer.flush()

    def sync(self) -> None:
        """Uploads the file to an object store."""
        if self._local:
            for file in pathlib.Path(self._local.name).iterdir():
                upload(file, self._folder / file.name)

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
        self.sync()

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(step=step, wall_time=time.time(), **content))
