"""Small files on any file system that Beam knows: local paths, gs:// and s3://."""

from __future__ import annotations

import json
import uuid
from typing import Any

from marco_jax.extras import optional

with optional():
    from apache_beam.io.filesystem import BeamIOError, CompressionTypes
    from apache_beam.io.filesystems import FileSystems


def is_remote(path: str) -> bool:
    """Whether a path is in an object store."""
    return "://" in path


def file_exists(path: str) -> bool:
    """Whether there is a file.

    Raises:
        ValueError: the path has a scheme that needs packages which are not installed.
    """
    try:
        return FileSystems.exists(path)
    except ValueError as error:
        scheme = path.partition(":")[0]
        names = {"gs": "apache-beam[gcp]", "s3": "apache-beam[aws]"}
        remedy = f"pip install '{names[scheme]}'" if scheme in names else "use gs:// or s3://"
        raise ValueError(f"{path}: Beam has no file system for {scheme}://: {remedy}") from error


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
