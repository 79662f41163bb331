"""A corpus in memory: collects texts and pairs, splits them by key, and removes leaks.

A text that is held out may also occur inside a training text, under another key: `Builder.build`
removes the lines of training texts that contain a held-out text, whatever their case and spacing.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterable, Sequence

from marco_jax.data.corpus import (
    HELD_OUT,
    KNOWLEDGE,
    PAIRS_A_DOCUMENT,
    PARALLEL,
    SPLITS,
    SYNTHETIC,
    TEXT,
    TRAIN,
    Document,
    Message,
    Pair,
    SourceInfo,
    find_pairs,
    normalize,
    split_of,
)
from marco_jax.data.templates import TEMPLATES, render_pair
from marco_jax.languages import LANGUAGES, get_language

# Characters after which a document of joined messages is closed.
DOCUMENT_CHARACTERS = 700
# A held-out text this long must not occur in training text; shorter ones ("Search") are common.
LEAK_CHARACTERS = 20
# Held-out texts are looked up by windows of this many characters, at every stride-th character.
_WINDOW, _STRIDE = 12, 8


class MemoryCorpus:
    """A corpus in memory. Made by a `Builder`."""

    def __init__(
        self,
        name: str,
        documents: dict[tuple[str, str], list[Document]],
        pairs: dict[tuple[str, str, str], list[Pair]],
    ) -> None:
        """`documents` by (source, split); `pairs` by (source language, target language, split)."""
        self.name = name
        self._documents = documents
        self._pairs = pairs

    def infos(self) -> list[SourceInfo]:
        """The sources that have training documents: languages first."""
        order = [*LANGUAGES, PARALLEL, KNOWLEDGE, SYNTHETIC]
        return [
            SourceInfo(name, TEXT, name) if name in LANGUAGES else SourceInfo(name, name)
            for name in order
            if self._documents.get((name, TRAIN))
        ]

    def sources(self) -> list[str]:
        """Their names."""
        return [info.name for info in self.infos()]

    def documents(self, source: str, split: str) -> list[Document]:
        """The documents of a source."""
        return self._documents.get((source, split), [])

    def texts(self, language: str, split: str) -> list[str]:
        """Plain texts of a language: what bits per byte are measured on."""
        return [document.text for document in self.documents(language, split)]

    def pairs(self, source_language: str, target_language: str, split: str) -> list[Pair]:
        """Pairs from one language to another, in a fixed order; found in either direction."""
        return find_pairs(self._pairs, source_language, target_language, split)

    def source_fingerprint(self, source: str) -> str:
        """A hash of the training documents of a source: the same documents have the same one."""
        digest = hashlib.blake2b(digest_size=16)
        for document in self.documents(source, TRAIN):
            digest.update(document.text.encode() + b"\0")
        return digest.hexdigest()


class Builder:
    """Collects texts, pairs and facts, splits them by key and renders documents."""

    def __init__(self, name: str, seed: int = 0) -> None:
        """`seed` chooses templates, directions and partners; it does not move the split."""
        self._name, self._seed = name, seed
        self._runs: list[tuple[str, str, list[Message], bool]] = []
        self._pairs: dict[tuple[str, str], dict[tuple[str, str, str], Pair]] = {}

    def add_texts(
        self, language: str, messages: Iterable[Message], *, source: str = "", joined: bool
    ) -> None:
        """Adds texts of a language in their order.

        Args:
            language: one of the 29 codes.
            messages: texts with their keys.
            source: mixture source; the language by default.
            joined: whether neighbours are joined to documents, line by line.
        """
        get_language(language)
        kept = [Message(m.key, normalize(m.text)) for m in messages]
        self._runs.append((source or language, language, [m for m in kept if m.text], joined))

    def add_pairs(self, pairs: Iterable[Pair]) -> None:
        """Adds translation pairs; untranslated ones and duplicates are left out."""
        for pair in pairs:
            source, target = normalize(pair.source), normalize(pair.target)
            if source and target and source != target:
                known = self._pairs.setdefault((pair.source_language, pair.target_language), {})
                clean = dataclasses.replace(pair, source=source, target=target)
                known.setdefault((pair.key, source, target), clean)

    def build(self) -> MemoryCorpus:
        """The corpus: training texts that hold a held-out one are left out."""
        leaks = _Leaks(self._held_out_texts())
        documents: dict[tuple[str, str], list[Document]] = collections.defaultdict(list)
        for source, language, messages, joined in self._runs:
            for split in SPLITS:
                kept = [m for m in messages if split_of(m.key) == split]
                if split == TRAIN:
                    clean = [Message(m.key, leaks.remove(m.text)) for m in kept]
                    kept = [m for m in clean if m.text]
                documents[source, split] += _documents(source, language, kept, joined)
        pairs: dict[tuple[str, str, str], list[Pair]] = {}
        for (source, target), known in sorted(self._pairs.items()):
            ordered = sorted(known.values(), key=lambda pair: _rank(self._seed, pair))
            held_out = [pair for pair in ordered if split_of(pair.key) == HELD_OUT]
            train = [
                pair
                for pair in ordered
                if split_of(pair.key) == TRAIN
                and not (leaks.found(pair.source) or leaks.found(pair.target))
            ]
            pairs[source, target, HELD_OUT], pairs[source, target, TRAIN] = held_out, train
        for (source, target, split), known_pairs in pairs.items():
            rendered = _render_pairs(source, target, known_pairs, self._seed)
            documents[PARALLEL, split] += rendered
        return MemoryCorpus(self._name, _without_duplicates(documents), pairs)

    def _held_out_texts(self) -> Iterable[str]:
        for source, _, messages, _ in self._runs:
            for text in (m.text for m in messages if split_of(m.key) == HELD_OUT):
                # Single lines of facts ("Currency: euro") may occur in training: others share them.
                yield from ([text] if source == KNOWLEDGE else text.splitlines())
        for known in self._pairs.values():
            for pair in known.values():
                if split_of(pair.key) == HELD_OUT:
                    yield from (pair.source, pair.target)


class _Leaks:
    """Finds held-out texts inside training texts, whatever their keys, case and spacing."""

    def __init__(self, held_out: Iterable[str]) -> None:
        texts = {_fold(text) for text in held_out}
        self._texts = {text for text in texts if _width(text) >= LEAK_CHARACTERS}
        # A text of LEAK_CHARACTERS covers a whole window at every stride, wherever it begins.
        self._by_window: dict[str, list[str]] = collections.defaultdict(list)
        for text in self._texts:
            if len(text) >= LEAK_CHARACTERS:
                for start in range(_STRIDE):
                    self._by_window[text[start : start + _WINDOW]].append(text)

    def found(self, text: str) -> bool:
        """Whether the text is, or contains, a held-out one."""
        text = _fold(text)
        windows = (text[i : i + _WINDOW] for i in range(0, len(text), _STRIDE))
        return text in self._texts or any(
            held_out in text for window in windows for held_out in self._by_window.get(window, ())
        )

    def remove(self, text: str) -> str:
        """The text without the lines that hold one; "" where one runs over several lines."""
        if not self.found(text):
            # Lines too short for a window (Chinese) are still compared whole.
            lines = text.split("\n")
            return "\n".join(line for line in lines if _fold(line) not in self._texts).strip()
        rest = "\n".join(line for line in text.split("\n") if not self.found(line)).strip()
        return "" if self.found(rest) else rest


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _width(text: str) -> int:
    """Length in Latin letters: an East Asian character says as much as two of them."""
    return len(text) + sum(character >= "\u2e80" for character in text)


def _documents(
    source: str, language: str, messages: Sequence[Message], joined: bool
) -> list[Document]:
    """One document a message, or neighbours joined until DOCUMENT_CHARACTERS are reached."""
    if not joined:
        return [Document(m.text, language, source, m.key) for m in messages]
    documents, lines, size = [], [], 0
    for message in messages:
        lines.append(message)
        size += len(message.text) + 1
        if size >= DOCUMENT_CHARACTERS:
            documents.append(_join(source, language, lines))
            lines, size = [], 0
    return [*documents, _join(source, language, lines)] if lines else documents


def _join(source: str, language: str, lines: Sequence[Message]) -> Document:
    return Document("\n".join(line.text for line in lines), language, source, lines[0].key)


def _render_pairs(source: str, target: str, pairs: Sequence[Pair], seed: int) -> list[Document]:
    """Both directions; a document holds a few pairs of one direction under one template."""
    rng = random.Random(f"{seed} {source} {target} {len(pairs)}")
    documents = []
    for turned, (x_language, y_language) in enumerate([(source, target), (target, source)]):
        names = (get_language(x_language).name, get_language(y_language).name)
        shuffled = rng.sample(list(pairs), len(pairs))
        remaining = iter(shuffled)
        while chunk := list(itertools.islice(remaining, rng.randint(1, PAIRS_A_DOCUMENT))):
            template = rng.randrange(len(TEMPLATES))
            texts = [
                render_pair(
                    template, *names, *((p.target, p.source) if turned else (p.source, p.target))
                )
                for p in chunk
            ]
            documents.append(Document("\n\n".join(texts), y_language, PARALLEL, chunk[0].key))
    return documents


def _rank(seed: int, pair: Pair) -> bytes:
    return hashlib.blake2b(f"{seed}\0{pair.key}\0{pair.target}".encode(), digest_size=8).digest()


def _without_duplicates(
    documents: dict[tuple[str, str], list[Document]],
) -> dict[tuple[str, str], list[Document]]:
    return {
        key: list({document.text: document for document in found}.values())
        for key, found in documents.items()
    }
