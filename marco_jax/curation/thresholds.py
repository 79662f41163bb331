"""Thresholds of the document rules, by language.

The values are FineWeb2's (arXiv 2506.20920, its per-language configs): the share of characters in
repeated lines, the share of lines that end in punctuation, and the range of the mean word length.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Bounds of a language: shares are 0 to 1, lengths are characters."""

    duplicate_lines: float
    final_punctuation: float
    shortest_word: float
    longest_word: float


# For languages without a row.
DEFAULT = Thresholds(0.30, 0.10, 2, 25)

_ROWS = {
    "zh": (0.287, 0.106, 1, 5),
    "ar": (0.304, 0.143, 2, 9),
    "de": (0.263, 0.0, 0, 15),
    "es": (0.252, 0.182, 3, 14),
    "fr": (0.264, 0.1, 2, 11),
    "ko": (0.374, 0.062, 1, 6),
    "ja": (0.328, 0.096, 1, 6),
    "pt": (0.287, 0.077, 3, 13),
    "tr": (0.272, 0.091, 3, 21),
    "bn": (0.203, 0.125, 3, 24),
    "he": (0.340, 0.2, 2, 9),
    "id": (0.241, 0.111, 3, 12),
    "it": (0.246, 0.025, 3, 21),
    "ms": (0.331, 0.125, 3, 11),
    "nl": (0.296, 0.102, 3, 17),
    "pl": (0.320, 0.087, 3, 12),
    "ru": (0.322, 0.231, 3, 11),
    "th": (0.349, 0.0, 2, 10),
    "uk": (0.300, 0.167, 3, 11),
    "ur": (0.204, 0.1, 2, 31),
    "vi": (0.293, 0.333, 3, 11),
    "cs": (0.311, 0.060, 3, 11),
    "el": (0.310, 0.167, 3, 11),
    "hu": (0.322, 0.067, 3, 15),
    "kk": (0.304, 0.176, 3, 12),
    "ro": (0.289, 0.081, 1, 14),
    "az": (0.879, 0.188, 3, 13),
    "ne": (0.155, 0.125, 3, 37),
}
THRESHOLDS = {code: Thresholds(*row) for code, row in _ROWS.items()}


def thresholds_of(language: str) -> Thresholds:
    """The bounds of a language; DEFAULT if it has none."""
    return THRESHOLDS.get(language, DEFAULT)
