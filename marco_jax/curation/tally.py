"""Counts documents by outcome; the counts of workers can be merged in any order."""

from __future__ import annotations

import collections
import math
import zlib
from typing import Any

from marco_jax.curation.documents import RawDocument

# Language of a document that was rejected before its language was identified.
UNKNOWN = "und"
# Histogram bins from 0 to 1, for shares; other numbers have four bins per power of two.
BINS = 40
# Characters of a sample that a report shows.
SHOWN = 400


def bin_of(name: str, value: float) -> int:
    """The histogram bin of a rule's measurement."""
    if name in ("short", "word length", "bits a byte"):
        return int(4 * math.log2(1 + max(0.0, value)))
    return int(BINS * min(max(value, 0.0), 2.0))


def bin_start(name: str, number: int) -> float:
    """The lower edge of a histogram bin."""
    if name in ("short", "word length", "bits a byte"):
        return 2 ** (number / 4) - 1
    return number / BINS


def fate_of(document: RawDocument) -> tuple[str, str, str]:
    """The language, stage and reason under which a document is counted."""
    reason = document.reason
    for kind in ("exact", "near"):
        reason = kind if reason.startswith(f"{kind} copy of") else reason
    return document.language or document.claimed or UNKNOWN, document.stage, reason


class Tally:
    """Documents, bytes and tokens by outcome, sizes of groups, charsets, histograms and samples."""

    def __init__(self, sample: int = 0) -> None:
        """Starts empty; keeps `sample` texts per outcome."""
        self._sample = sample
        self.fates: dict[str, dict[str, Any]] = {}
        self.faults: collections.Counter[str] = collections.Counter()
        self.charsets: collections.Counter[str] = collections.Counter()
        self.histograms: dict[str, collections.Counter[str]] = {}

    def add(self, document: RawDocument, tokens: int = 0) -> None:
        """Counts a document whose outcome is decided."""
        fate = fate_of(document)
        language = fate[0]
        size = len(document.text.encode("utf-8", "replace"))
        draw = zlib.crc32(document.id.encode("utf-8", "replace"))
        one = {"documents": 1, "bytes": size, "tokens": tokens, "masked": document.masked}
        one["clusters"] = {} if document.stage else {str(document.cluster): 1}
        one["sample"] = [[draw, document.id, document.text[:SHOWN]]]
        self._add_fate("\t".join(fate), one)
        if document.charset:
            self.charsets[document.charset] += 1
        for name, value in document.scores.items():
            counts = self.histograms.setdefault(f"{language}\t{name}", collections.Counter())
            counts[str(bin_of(name, value))] += 1

    def merge(self, other: dict[str, Any]) -> None:
        """Adds the counts that another tally's `to_json` returned."""
        for fate, one in other["fates"].items():
            self._add_fate(fate, one)
        self.faults.update(other["faults"])
        self.charsets.update(other["charsets"])
        for key, counts in other["histograms"].items():
            self.histograms.setdefault(key, collections.Counter()).update(counts)

    def to_json(self) -> dict[str, Any]:
        """All counts as plain data."""
        return {
            "fates": self.fates,
            "faults": self.faults,
            "charsets": self.charsets,
            "histograms": self.histograms,
        }

    def _add_fate(self, fate: str, one: dict[str, Any]) -> None:
        names = ("documents", "bytes", "tokens", "masked")
        total = self.fates.setdefault(
            fate, {**dict.fromkeys(names, 0), "clusters": collections.Counter(), "sample": []}
        )
        for name in names:
            total[name] += one[name]
        total["clusters"].update(one["clusters"])
        if self._sample:
            drawn = sorted([*total["sample"], *map(list, one["sample"])])
            total["sample"] = drawn[: self._sample]
