"""What is done with objects besides reading and writing one: lists, copies, conditional writes."""

from __future__ import annotations

import pathlib

from marco_jax.stores.connect import URL, file_system
from marco_jax.stores.object_path import ObjectPath


def create(path: ObjectPath, data: bytes) -> bool:
    """Writes an object only if there is none of that name; False if there is.

    The store itself decides, so of two writers one succeeds.
    """
    try:
        path.files.pipe_file(path.key, data, mode="create")
    except Exception as error:
        # A repeated request meets what the first one wrote, where only the answer was lost.
        if _exists_already(error):
            return path.read_bytes() == data
        raise
    return True


def read_range(path: ObjectPath, start: int, stop: int) -> bytes:
    """Bytes start..stop of an object; fewer where it ends before."""
    return path.files.cat_file(path.key, start=start, end=stop) if stop > start else b""


def check_bucket(path: ObjectPath) -> None:
    """Checks that a path's bucket exists and that its objects may be listed.

    Raises:
        OSError: it does not, or they may not; the message has the remedy. A lost connection raises
            an error of `store_error`.
    """
    root = ObjectPath("/", *path.parts[1:3])
    remedy = "check the name of the bucket, and the credentials (docs/object_stores.md)"
    try:
        path.files.ls(path.key, detail=False)
    except FileNotFoundError:
        if path != root and not root.exists():
            raise FileNotFoundError(f"{root} is not there or may not be read: {remedy}") from None
    except Exception as error:
        if not _is_refused(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise PermissionError(f"{root} cannot be read ({reason}): {remedy}") from error


def find_objects(pattern: str) -> list[str]:
    """The URLs of the objects that a pattern ("**" too) matches, sorted."""
    scheme = URL.match(pattern)[1]
    # Not by way of ObjectPath, which would take a pattern for a name.
    _, _, rest = pattern.partition(":")
    found = file_system(scheme).glob(rest.lstrip("/"), detail=True)
    return sorted(f"{scheme}://{key}" for key, about in found.items() if about["type"] == "file")


def upload(file: pathlib.Path, target: ObjectPath) -> None:
    """Copies a local file to a store."""
    target.files.put_file(str(file), target.key)


def download(path: ObjectPath, file: pathlib.Path) -> None:
    """Copies an object to a local file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    path.files.get_file(path.key, str(file))


def remove_objects(path: ObjectPath) -> None:
    """Removes an object and all objects below it; nothing where there are none."""
    names = path.files.find(path.key)
    if names:
        path.files.rm(names)


def _is_refused(error: Exception) -> bool:
    """Whether a store refuses the credentials, or there are none: another try would not help."""
    missing = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
    code = getattr(error, "code", None)
    return (
        isinstance(error, PermissionError) or code in (401, 403) or type(error).__name__ in missing
    )


def _exists_already(error: Exception) -> bool:
    """Whether an object was not created because there is one: HTTP 412."""
    if isinstance(error, FileExistsError) or getattr(error, "code", None) in (412, "412"):
        return True
    response = getattr(error, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412
