"""Lists in flags and in fields of a config."""

from __future__ import annotations


def names_in(text: str) -> tuple[str, ...]:
    """The names of "kk, ne"; none of an empty text."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
