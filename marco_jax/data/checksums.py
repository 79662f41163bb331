"""Checksums of files by block, so that a few blocks of a large file can be verified cheaply."""

from __future__ import annotations

import json
import pathlib
import random
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.files import file_sizes, read_json_object, write_json

# Bytes that one checksum covers.
BLOCK_BYTES = 4 << 20


def file_checksums(path: pathlib.Path) -> dict[str, Any]:
    """The size of a file in bytes, and the CRC-32 of each of its blocks: plain data."""
    crcs, size = [], 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            crcs.append(zlib.crc32(block))
            size += len(block)
    return {"bytes": size, "crc32": crcs}


def find_damage(
    recorded: Mapping[pathlib.Path, Mapping[str, Any]], most_blocks: int | None
) -> dict[pathlib.Path, str]:
    """Compares files with their recorded checksums.

    Args:
        recorded: what `file_checksums` returned for each file.
        most_blocks: how many blocks are read, chosen at random, of files that together have more
            bytes than so many blocks; None: all. Sizes are compared in any case, and once a sampled
            block differs all are read.

    Returns:
        Of each damaged file what is wrong, such as "tokens.bin differs at byte 4,194,304".

    Raises:
        PermissionError: a file that may not be read; the message has the remedy.
    """
    damaged: dict[pathlib.Path, str] = {}
    blocks: list[tuple[pathlib.Path, int]] = []
    sizes = file_sizes(recorded)
    for path, sums in recorded.items():
        if (size := sizes.get(path)) is None:
            damaged[path] = f"{path.name} is missing"
        elif size != sums["bytes"]:
            damaged[path] = f"{path.name} has {size:,} bytes instead of {sums['bytes']:,}"
        else:
            blocks += [(path, number) for number in range(len(sums["crc32"]))]
    total = sum(sums["bytes"] for sums in recorded.values())
    sampled = most_blocks is not None and total > most_blocks * BLOCK_BYTES
    if sampled:
        blocks = random.sample(blocks, min(most_blocks, len(blocks)))
    for path, number in blocks:
        if path not in damaged and (what := _block_damage(path, number, recorded[path])):
            damaged[path] = what
    return find_damage(recorded, None) if damaged and sampled else damaged


def _block_damage(path: pathlib.Path, number: int, sums: Mapping[str, Any]) -> str:
    try:
        with path.open("rb") as file:
            file.seek(number * BLOCK_BYTES)
            found = zlib.crc32(file.read(BLOCK_BYTES))
    except PermissionError:
        raise _not_readable(path) from None
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    if found == sums["crc32"][number]:
        return ""
    return f"{path.name} differs at byte {number * BLOCK_BYTES:,}"


def write_checked(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file that carries its own checksum."""
    write_json(path, {**values, "checksum": json_checksum(values)})


def read_checked(path: pathlib.Path) -> dict[str, Any]:
    """The values of a JSON file that carries its own checksum.

    Raises:
        ValueError: it is missing or damaged.
        PermissionError: it may not be read; the message has the remedy.
    """
    try:
        values = read_json_object(path)
    except PermissionError:
        raise _not_readable(path) from None
    except (OSError, ValueError, RecursionError):
        values = {}
    if values and values.pop("checksum", None) == json_checksum(values):
        return values
    raise ValueError(f"{path} is missing or damaged: delete {path.parent}, it will be made again")


def json_checksum(values: Sequence[Any] | Mapping[str, Any]) -> int:
    """The CRC-32 of plain data, however its JSON is laid out."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _not_readable(path: pathlib.Path) -> PermissionError:
    return PermissionError(f"{path} may not be read: make it readable, or delete {path.parent}")
