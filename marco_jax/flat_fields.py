"""Nested fields, such as those of a config, by their whole names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat_fields(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values by dotted name, such as "optimizer.b1"; `prefix` stands in front of all names."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= flat_fields(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
