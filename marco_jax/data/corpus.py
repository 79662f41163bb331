"""A corpus: documents by source, translation pairs, and a held-out split without leaks.

Every text has a key that is the same in all languages (the English message, an article's id). The
key alone decides the split: what is held out in one language is held out in all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Protocol

from marco_jax.data.chat import Turn

TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)
# Kinds of sources.
TEXT, PARALLEL, KNOWLEDGE, SYNTHETIC = "text", "parallel", "knowledge", "synthetic"
# Conversations, and pairs of answers of which one is preferred.
CHAT, PREFERENCE = "chat", "preference"
KINDS = (TEXT, PARALLEL, KNOWLEDGE, SYNTHETIC, CHAT, PREFERENCE)

# Keys out of a thousand that are held out.
HELD_OUT_PER_MILLE = 80
# Pairs of one direction that a parallel document may hold.
PAIRS_A_DOCUMENT = 4


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


def find_pairs(
    pairs: Mapping[tuple[str, str, str], list[Pair]], source: str, target: str, split: str
) -> list[Pair]:
    """Pairs from `source` to `target` language; those of the other direction are turned."""
    given = pairs.get((source, target, split))
    if given is not None:
        return given
    turned = pairs.get((target, source, split), [])
    return [Pair(pair.key, source, target, pair.target, pair.source) for pair in turned]
