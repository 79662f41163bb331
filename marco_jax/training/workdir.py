"""A workdir belongs to one run at a time, and to one kind of run."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from marco_jax.files import write_json
from marco_jax.training.config import ConfigError, changed_fields

_log = logging.getLogger(__name__)

_REMEDY = "give the value it has there, or a new workdir"


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
