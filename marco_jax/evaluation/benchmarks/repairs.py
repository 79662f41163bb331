"""Repairs lines of published files that are known to be broken.

A line is repaired only if it is, byte for byte, one that was published broken; everything else
that cannot be read stays an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Repair:
    """What is wrong in a published line, and what its authors meant.

    Attributes:
        release: the file, with the commit at which it has the line.
        wrong: the characters to replace; they occur once in the line.
        right: their replacement.
    """

    release: str
    wrong: str
    right: str


# By SHA-256 of the line in UTF-8, without its line end.
REPAIRS = {
    "cfd49c445de9eb850eabe938c21ee61a947cdca3ed785142cf9bb1ef6c66ca7d": Repair(
        release="AIDC-AI/Marco-LLM at 697c8d4, Marco-Bench-MIF/data/zh_local.jsonl, line 15",
        # Quotes that are part of the prompt are not escaped.
        wrong='（"\\n\\n"）',
        right='（\\"\\n\\n\\"）',
    ),
}


def repaired_line(line: str, location: str) -> str | None:
    """The text that a line of a known broken release should have; None for any other line.

    `location` is "file:line", for the log.
    """
    repair = REPAIRS.get(hashlib.sha256(line.removesuffix("\r").encode()).hexdigest())
    if repair is None:
        return None
    _log.info("%s: repaired, as published it is broken (%s)", location, repair.release)
    return line.replace(repair.wrong, repair.right)
