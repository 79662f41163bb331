"""The few shapes that arrays are padded to, so that a suite compiles few programs."""

from __future__ import annotations


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple


def bucket(length: int, smallest: int = 32) -> int:
    """The next of 4, 5, 6 and 7 eighths of a power of two: at most a fifth is padding.

    From 128 on all are multiples of 32; `smallest` is a power of two.
    """
    size = smallest
    while size < length:
        size *= 2
    if size == smallest:
        return size
    step = max(size // 8, min(smallest, size // 2))
    return max(smallest, round_up(length, step))


def power_of_two(count: int) -> int:
    """The next power of two, 1 or more."""
    return 1 << max(0, count - 1).bit_length()
