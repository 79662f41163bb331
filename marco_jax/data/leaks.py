"""Held-out texts that occur in training text.

Of training text there are hashes: of documents, their lines and their sentences (`hash_units`). A
held-out text occurs in it if its own hash is among them. A text that is several sentences, or that
has a full stop within ("version 3.1"), is cut otherwise inside a longer document; it occurs if all
of its own sentences do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from marco_jax.data.texts import content_hash_of, is_long, long_sentences


class LeakFinder:
    """Finds held-out texts in hashes of training text.

    Attributes:
        hashes: those that are looked for, uint64, sorted.
        size: how many held-out texts there are.
    """

    def __init__(self, held_out: Iterable[str]) -> None:
        """Takes the held-out texts; those that are too short to be looked for are left out."""
        self._sentences = {
            content_hash_of(text): frozenset(map(content_hash_of, long_sentences(text)))
            for text in held_out
            if is_long(text)
        }
        self.size = len(self._sentences)
        # Texts by one of their sentences.
        self._by_sentence: dict[int, list[int]] = {}
        for text, sentences in self._sentences.items():
            if sentences:
                self._by_sentence.setdefault(min(sentences), []).append(text)
        known = self._sentences.keys() | set().union(*self._sentences.values())
        self.hashes = np.array(sorted(known), np.uint64)

    def find(self, hashes: Collection[int]) -> set[int]:
        """The hashes of the held-out texts that occur in training text with these hashes."""
        found = {text for text in hashes if text in self._sentences}
        present = frozenset(hashes)
        for sentence in present & self._by_sentence.keys():
            texts = self._by_sentence[sentence]
            found.update(text for text in texts if self._sentences[text] <= present)
        return found
