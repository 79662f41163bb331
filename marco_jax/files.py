"""Paths that a user gives: which of them a command can serve."""

from __future__ import annotations

import re

# Two letters at least: "C:/" is a drive. "gs:/b" is what a program that joins paths makes of
# "gs://b".
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def check_local(name: str, path: str) -> None:
    """Refuses a path that names an object store, a hub or a web server.

    Args:
        name: of the flag or field that holds it, such as "--workdir".
        path: the path, or several with commas between them.

    Raises:
        ValueError: what it is, and what to do instead.
    """
    for part in path.split(","):
        found = _SCHEME.match(part.strip())
        if found is None:
            continue
        scheme = found[1].lower()
        if scheme in ("hf", "http", "https"):
            remedy = "download it first, and give the path of what was downloaded"
        else:
            remedy = "mount the bucket as a folder, and give the path of a file or folder below it"
        raise ValueError(f"{name}={part.strip()}: {scheme}:// paths cannot be used here: {remedy}")
