"""What sources hold: documents and translation pairs, and the rule that holds some of them out.

A hash of the content alone decides whether a text is held out, whatever its source is called, in
whichever file it stands, and whatever its spacing and case. Of parallel text the English side
decides, else the first, so that a sentence that is held out in one language is held out in all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.data.chat import Turn

TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)
# Kinds of sources.
TEXT, PARALLEL, KNOWLEDGE, SYNTHETIC = "text", "parallel", "knowledge", "synthetic"
# Conversations, pairs of answers of which one is preferred, and prompts that the model answers
# itself in reinforcement learning.
CHAT, PREFERENCE, PROMPT = DIALOGUES = ("chat", "preference", "prompt")
KINDS = (TEXT, PARALLEL, KNOWLEDGE, SYNTHETIC, *DIALOGUES)

# Characters after which a document of joined texts is closed.
DOCUMENT_CHARACTERS = 700

# Held-out texts of this width are looked for in all training text; shorter ones ("Search") are
# common, and may be part of any text.
LEAK_WIDTH = 20
_SENTENCE_END = re.compile(r"[.!?…。！？।؟۔\n]+")
_EDGES = " \t\"'“”«»„()[]-–—:;,.!?…。！？।؟۔"


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
    """A document of a source.

    Attributes:
        text: of a conversation, its plain contents.
        language: a code, or "" where it is not known.
        source: name of the source.
        key: its id, else its text: a name for it in reports.
        turns: the messages of a conversation.
        variables: of a conversation's chat template, such as its tools.
        record: of a prompt, all fields of its record, which rewards read.
        texts: what it is compared with held-out texts by: the sides of its pairs, or the prompt of
            a conversation; empty for one that is compared by its own text.
    """

    text: str
    language: str
    source: str
    key: str
    turns: tuple[Turn, ...] = ()
    texts: tuple[str, ...] = ()
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A text in two languages; `key` is the same for all pairs of one message."""

    key: str
    source_language: str
    target_language: str
    source: str
    target: str

    def turned(self) -> Pair:
        """The pair in the other direction."""
        languages = (self.target_language, self.source_language)
        return Pair(self.key, *languages, self.target, self.source)


def normalize(text: str) -> str:
    """NFC, as every tokenizer here reads text, without outer whitespace or carriage returns."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def content_hash_of(text: str) -> int:
    """A 64-bit hash of a text, the same for texts that differ in spacing, case and outer marks."""
    return int.from_bytes(_digest(_fold(text)), "little")


def _fold(text: str) -> str:
    """A text without differences of case; those of spacing `_digest` takes away."""
    return unicodedata.normalize("NFC", text).casefold()


def _digest(folded: str) -> bytes:
    """The hash of a folded text, 8 bytes, the lowest first."""
    plain = " ".join(folded.split())
    plain = plain.strip(_EDGES) or plain
    return hashlib.blake2b(plain.encode(), digest_size=8).digest()


def is_held_out(text: str, share: float) -> bool:
    """Whether a text is one of the share that is held out.

    Text that is held out at some share is held out at every larger one.
    """
    return content_hash_of(text) < share * 2**64


def hash_units(documents: Iterable[Document]) -> np.ndarray:
    """Hashes of documents and of their lines and sentences, uint64, in no order.

    A text that is held out must be none of them. Short lines and sentences are left out.
    """
    digests: list[bytes] = []
    for document in documents:
        for text in document.texts or (document.text,):
            text = _fold(text)
            digests.append(_digest(text))
            if len(text) > LEAK_WIDTH // 2:
                parts = {*text.split("\n"), *_SENTENCE_END.split(text)} - {text}
                digests += [_digest(part) for part in parts if _is_unit(part)]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def long_sentences(text: str) -> list[str]:
    """The sentences of a text that are long enough to be looked for in other text."""
    return [part for part in _SENTENCE_END.split(text) if _is_unit(part)]


def is_long(text: str) -> bool:
    """Whether a text is long enough to be looked for in other text."""
    return _width(unicodedata.normalize("NFC", text)) >= LEAK_WIDTH


def _is_unit(part: str) -> bool:
    # Cutting has taken its last mark, and that may have been two wide.
    return _width(part) >= LEAK_WIDTH - 2


def _width(text: str) -> int:
    """Characters; East Asian ones count twice, since one says as much as two Latin letters."""
    if len(text) >= LEAK_WIDTH:
        return len(text)
    return len(text) + sum(character >= "\u2e80" for character in text)


def join_neighbours(documents: Iterable[Document]) -> Iterator[Document]:
    """Neighbours as lines of documents of about DOCUMENT_CHARACTERS."""
    lines: list[Document] = []
    size = 0
    for document in documents:
        lines.append(document)
        size += len(document.text) + 1
        if size >= DOCUMENT_CHARACTERS:
            yield _join(lines)
            lines, size = [], 0
    if lines:
        yield _join(lines)


def _join(lines: Sequence[Document]) -> Document:
    first, texts = lines[0], tuple(line.text for line in lines)
    return Document("\n".join(texts), first.language, first.source, first.key, (), texts)
