"""Finished steps of a checkpoints directory, and recovery of interrupted and damaged ones."""

from __future__ import annotations

import logging
import os
import pathlib
import shutil

from marco_jax.weights.manifest import Damaged, verify_files

_log = logging.getLogger(__name__)

# In Orbax's temporary name of a step or an item; and the file that it writes last.
TEMPORARY = ".orbax-checkpoint-tmp"
COMMITTED = "commit_success.txt"


def finished_steps(directory: pathlib.Path) -> list[int]:
    """Steps whose save was finished, in no order. Their files are not verified."""
    return [int(path.name) for path in directory.iterdir() if path.name.isdigit()]


def settle(directory: pathlib.Path) -> None:
    """Finishes or removes saves that were interrupted before their final rename.

    A save that has a manifest, and all files of it, is complete and gets its final name. Any other
    is removed, since the saves of a run that is killed often would fill the disk.
    """
    for path in sorted(directory.glob(f"*{TEMPORARY}*")):
        final = directory / path.name.partition(".")[0]
        try:
            if final.exists():
                raise Damaged("the step exists")
            verify_files(path)
        except Damaged as damage:
            _log.warning(f"the save of checkpoint {final.name} was interrupted ({damage}): removed")
            shutil.rmtree(path)
        else:
            _log.info(
                f"the save of checkpoint {final.name} was interrupted before its rename: finished"
            )
            (path / COMMITTED).touch()
            os.replace(path, final)


def set_aside(step: pathlib.Path, directory: pathlib.Path, problem: str) -> None:
    """Moves a damaged step to `directory`, where it can be inspected."""
    target, number = directory / step.name, 1
    while target.exists():
        number += 1
        target = directory / f"{step.name}.{number}"
    _log.warning(f"checkpoint {step.name} is damaged ({problem}): moved to {target}")
    directory.mkdir(exist_ok=True)
    os.replace(step, target)
