"""A workdir belongs to one run at a time, and to one kind of run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from marco_jax.training.checkpoint import write_json
from marco_jax.training.config import ConfigError, changed_fields
from marco_jax.training.processes import agree

_log = logging.getLogger(__name__)

LOCK = ".lock"
_REMEDY = "give the value it has there, or a new workdir"


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Holds a workdir, in the first process; the lock of a process that has died is free at once.

    It is a POSIX record lock: processes that this one forks do not hold it, and network file
    systems pass it on. Where there are no locks (some object stores) the run says so and goes on.

    Raises:
        ValueError: another run holds it; the message says which.
    """
    problem, file = "", None
    if jax.process_index() == 0:
        file = open(directory / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            problem = f"{directory} is in use by {holder}: stop that run, or give another workdir"
        except OSError as error:
            _log.warning(f"{directory} cannot be locked ({error}): start no second run in it")
        else:
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
            file.flush()
    try:
        if problem := agree(problem):
            raise ValueError(problem)
        yield
    finally:
        if file:
            file.close()


def identity(config: ConfigDict, tokenizer: str) -> dict[str, Any]:
    """What every run of a workdir has in common, besides the model: a part of a checkpoint."""
    return {"objective": config.objective, "tokenizer": tokenizer}


def check_belongs(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuses a run whose checkpoint is one of another kind.

    Args:
        there: the meta of a checkpoint. here: `identity` of this run and its `model`.

    Raises:
        ConfigError: names the first field that differs.
    """
    # Adapters are told apart from whole parameters, whichever of both was there first.
    names = [*here, *(name for name in ("lora", "base") if there.get(name) and name not in here)]
    for line in changed_fields(
        {name: there.get(name) for name in names}, {name: here.get(name) for name in names}
    ):
        field, _, values = line.partition(": ")
        if field == "tokenizer":
            raise ConfigError(
                "the tokenizer is not the one that this workdir's checkpoints were trained with: "
                "put its tokenizer/ back, or give a new workdir"
            )
        old, new = values.split(" -> ")
        raise ConfigError(f"{field} is {new}, and {old} in this workdir's checkpoints: {_REMEDY}")


def record_config(config: ConfigDict, directory: pathlib.Path) -> None:
    """Writes config.json, and says what has changed in it since the workdir's last run."""
    path = directory / "config.json"
    resolved = json.loads(config.to_json())
    # How processes find one another is no part of the experiment.
    resolved.pop("distributed", None)
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            lines = changed_fields(before, resolved)
        except (ValueError, AttributeError, TypeError):
            _log.warning(f"{path} cannot be read: it is written anew")
            lines = []
        for line in lines:
            _log.info(f"config changed since this workdir's last run: {line}")
    if jax.process_index() == 0:
        write_json(path, resolved)
