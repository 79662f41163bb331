"""Ids that a service knows a run by, kept in the workdir so that a restart goes on with it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from marco_jax.files import read_json_object, write_json


def kept_id(path: pathlib.Path, create: Callable[[], str]) -> str:
    """The id in a JSON file; where there is no such file, a new one, which is written first.

    Args:
        path: of the file, in the workdir.
        create: gives the new id.

    Raises:
        ValueError: the file holds no id.
        OSError: the file cannot be read or written.
    """
    if path.exists():
        found = read_json_object(path).get("id")
        if not isinstance(found, str) or not found:
            raise ValueError(f"{path} has no id: remove it, and a new run is started there")
        return found
    new = create()
    write_json(path, {"id": new})
    return new
