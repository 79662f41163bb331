"""Weights & Biases."""

from __future__ import annotations

import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from marco_jax.extras import optional
from marco_jax.files import is_remote
from marco_jax.trackers.kept_ids import kept_id
from marco_jax.trackers.tracker import Tracker


class WandbTracker(Tracker):
    """A run of the project `wandb.project`, which a restart goes on with.

    Its id is a random one in the workdir's wandb_run.json: workdirs of one name are different runs.
    Weights & Biases takes no step twice: of steps that a restart repeats it keeps the first values.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], step: int) -> None:
        """Starts the run, or goes on with it; see Tracker for the arguments.

        Raises:
            MissingExtra: wandb is not installed.
        """
        fields = config["wandb"]
        with optional(f"wandb.project={fields['project']!r}"):
            import wandb
        # Written before it is used: a run that is killed here goes on with the same one.
        run_id = kept_id(workdir / "wandb_run.json", lambda: uuid.uuid4().hex)
        self._run = wandb.init(
            project=fields["project"],
            name=fields["name"] or workdir.resolve().name,
            id=run_id,
            resume="allow",
            # Runs that share a process are different runs.
            reinit="create_new",
            dir=None if is_remote(workdir) else str(workdir),
            config=dict(config),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends the metrics; those of the newest step are shown when the next one follows."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Ends the run when all is sent."""
        self._run.finish()
