"""Rounds lengths and counts up to few sizes, so that few programs are compiled."""

from __future__ import annotations


def bucket(length: int, smallest: int = 32, steps: int = 4) -> int:
    """Rounds up to one of `steps` sizes between a power of two and the next.

    With 4 steps at most a fifth is padding. Results from 128 on are multiples of 32; `smallest` is
    a power of two.
    """
    size = power_of_two(length)
    if size <= smallest:
        return smallest
    step = max(size // 2 // steps, min(smallest, size // 2))
    return max(smallest, -(-length // step) * step)


def power_of_two(count: int) -> int:
    """Rounds up to a power of two, at least 1."""
    return 1 << max(0, count - 1).bit_length()


def power_of(base: int, count: int) -> int:
    """Rounds up to a power of `base`, at least 1."""
    value = 1
    while value < count:
        value *= base
    return value
