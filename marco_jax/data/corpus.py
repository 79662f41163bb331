"""A corpus: documents by source, translation pairs, and a held-out split without leaks.

Every text has a key that is the same in all languages (the English message, an article's id). The
key alone decides the split: what is held out in one language is held out in all of them.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from marco_jax.data.chat import Turn
from marco_jax.data.templates import TEMPLATES, render_pair
from marco_jax.languages import LANGUAGES, get_language

TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)
# Kinds of sources.
TEXT, PARALLEL, KNOWLEDGE, SYNTHETIC = "text", "parallel", "knowledge", "synthetic"
# Conversations, and pairs of answers of which one is preferred.
CHAT, PREFERENCE = "chat", "preference"
KINDS = (TEXT, PARALLEL, KNOWLEDGE, SYNTHETIC, CHAT, PREFERENCE)

# Keys out of a thousand that are held out.
HELD_OUT_PER_MILLE = 80
# Characters after which a document of joined messages is closed.
DOCUMENT_CHARACTERS = 700
# Pairs of one direction that a parallel document may hold.
PAIRS_A_DOCUMENT = 4
# A held-out text this long must not occur in training text; shorter ones ("Search") are common.
LEAK_CHARACTERS = 20
# Held-out texts are looked up by windows of this many characters, at every stride-th character.
_WINDOW, _STRIDE = 12, 8


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """A source of a mixture: its name, its kind, and its language ("" for several).

    `streamed` sources are tokenised while they are read, the others before.
    """

    name: str
    kind: str
    language: str = ""
    streamed: bool = False


@dataclasses.dataclass(frozen=True)
class Document:
    """A text of a mixture source ("en", ..., "parallel", "knowledge", "synthetic").

    A conversation has its messages as `turns`, and their plain contents as `text`.
    """

    text: str
    language: str
    source: str
    key: str
    turns: tuple[Turn, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pair:
    """A text in two languages; `key` is the same for all pairs of one message."""

    key: str
    source_language: str
    target_language: str
    source: str
    target: str


@dataclasses.dataclass(frozen=True)
class Message:
    """A text of a language on its way into a corpus."""

    key: str
    text: str


def split_of(key: str) -> str:
    """The split of a key: a hash decides, the same for every seed and language."""
    digest = hashlib.blake2b(normalize(key).lower().encode(), digest_size=8).digest()
    return HELD_OUT if int.from_bytes(digest, "big") % 1000 < HELD_OUT_PER_MILLE else TRAIN


def normalize(text: str) -> str:
    """NFC, as every tokenizer here reads text, without outer whitespace or carriage returns."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


class Corpus(Protocol):
    """Documents by source, and pairs by direction, in two splits."""

    def infos(self) -> list[SourceInfo]:
        """The sources that have training documents, in the order of source ids."""
        ...

    def sources(self) -> list[str]:
        """Their names."""
        ...

    def source_fingerprint(self, source: str) -> str:
        """A hash that changes with the training documents of a source."""
        ...

    def documents(self, source: str, split: str) -> Iterable[Document]:
        """The documents of a source, in a fixed order.

        Documents of preferences come in twos: the chosen one, then the rejected one.
        """
        ...

    def texts(self, language: str, split: str) -> Iterable[str]:
        """Plain texts of a language: what bits per byte are measured on."""
        ...

    def pairs(self, source_language: str, target_language: str, split: str) -> list[Pair]:
        """Pairs from one language to another, in a fixed order; found in either direction."""
        ...


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


def find_pairs(
    pairs: Mapping[tuple[str, str, str], list[Pair]], source: str, target: str, split: str
) -> list[Pair]:
    """Pairs from `source` to `target` language; those of the other direction are turned."""
    given = pairs.get((source, target, split))
    if given is not None:
        return given
    turned = pairs.get((target, source, split), [])
    return [Pair(pair.key, source, target, pair.target, pair.source) for pair in turned]


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
