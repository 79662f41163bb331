"""Small files on any file system that Beam knows: local paths, gs:// and s3://."""

from __future__ import annotations

import importlib.util
import json
import uuid
from typing import Any

from marco_jax.extras import optional

with optional():
    from apache_beam.io.filesystem import BeamIOError, CompressionTypes
    from apache_beam.io.filesystems import FileSystems


# What Beam needs for a scheme: a module, and the command that installs it.
_SCHEMES = {
    "gs": ("apitools", "pip install 'apache-beam[gcp]'"),
    "s3": ("boto3", "pip install 'apache-beam[aws]'"),
}


def is_beam_url(path: str) -> bool:
    """Whether a path is in an object store."""
    return "://" in path


def check_file_system(path: str) -> None:
    """Checks that what reads and writes a path is installed.

    Raises:
        ValueError: the path has a scheme that Beam does not know, or that needs packages.
    """
    if not is_beam_url(path):
        return
    scheme = path.partition(":")[0]
    module, remedy = _SCHEMES.get(scheme, ("", "use gs:// or s3://"))
    try:
        found = importlib.util.find_spec(module) if module else FileSystems.get_filesystem(path)
    except (ModuleNotFoundError, ValueError):
        found = None
    if found is None:
        raise ValueError(f"{path}: Beam has no file system for {scheme}://: {remedy}")


def file_exists(path: str) -> bool:
    """Whether there is a file.

    Raises:
        ValueError: as `check_file_system`.
    """
    check_file_system(path)
    return FileSystems.exists(path)


def read_json_value(path: str) -> Any:
    """The value of a JSON file; None without one."""
    if not file_exists(path):
        return None
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return json.loads(file.read())


def write_whole(path: str, data: bytes) -> None:
    """Writes a file, which appears whole, and in the place of an older one."""
    draft = f"{path}.{uuid.uuid4().hex}.draft"
    with FileSystems.create(draft, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)
    replace_file(draft, path)


def replace_file(draft: str, path: str) -> None:
    """Renames a file, in the place of an older one."""
    try:
        FileSystems.rename([draft], [path])
    except BeamIOError:
        FileSystems.delete([path])
        FileSystems.rename([draft], [path])
