"""Which steps of a checkpoints directory are finished, and what becomes of those that are not."""

from __future__ import annotations

import logging
import os
import pathlib
import shutil

from marco_jax.weights.manifest import Damaged, verify_files

_log = logging.getLogger(__name__)

# Orbax's temporary name of a step or an item, and what it writes last before the rename.
TEMPORARY = ".orbax-checkpoint-tmp"
COMMITTED = "commit_success.txt"


def finished_steps(directory: pathlib.Path) -> list[int]:
    """Steps that have their name, in no order: saved to the end, and not verified since."""
    return [int(path.name) for path in directory.iterdir() if path.name.isdigit()]


def settle(directory: pathlib.Path) -> None:
    """Ends what a kill has left between the writes of a save and its rename.

    A save that has its manifest, and all that is in it, gets its name. One that was cut before is
    removed: it was never a checkpoint, and a run that is killed often would fill the disk.
    """
    for path in sorted(directory.glob(f"*{TEMPORARY}*")):
        final = directory / path.name.partition(".")[0]
        try:
            if final.exists():
                raise Damaged("the step is there")
            verify_files(path)
        except Damaged as damage:
            _log.warning(f"the save of checkpoint {final.name} was cut ({damage}): removed")
            shutil.rmtree(path)
        else:
            _log.info(
                f"the save of checkpoint {final.name} was cut before its last rename: finished"
            )
            (path / COMMITTED).touch()
            os.replace(path, final)


def set_aside(step: pathlib.Path, directory: pathlib.Path, problem: str) -> None:
    """Moves a damaged step to `directory`, whole as it is, for whoever wants to look at it."""
    target, number = directory / step.name, 1
    while target.exists():
        number += 1
        target = directory / f"{step.name}.{number}"
    _log.warning(f"checkpoint {step.name} is damaged ({problem}): moved to {target}")
    directory.mkdir(exist_ok=True)
    os.replace(step, target)
