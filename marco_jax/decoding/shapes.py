"""Shapes that arrays are padded to, chosen so that a suite compiles few programs."""

from __future__ import annotations


def round_up(value: int, multiple: int) -> int:
    """Rounds up to a multiple."""
    return -(-value // multiple) * multiple


def bucket(length: int, smallest: int = 32) -> int:
    """Rounds up to 4, 5, 6 or 7 eighths of a power of two, so that at most a fifth is padding.

    Results from 128 on are multiples of 32; `smallest` is a power of two.
    """
    size = smallest
    while size < length:
        size *= 2
    if size == smallest:
        return size
    step = max(size // 8, min(smallest, size // 2))
    return max(smallest, round_up(length, step))


def power_of_two(count: int) -> int:
    """Rounds up to a power of two, at least 1."""
    return 1 << max(0, count - 1).bit_length()
