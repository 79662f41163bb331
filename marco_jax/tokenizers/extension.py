"""A larger vocabulary for languages that a byte-level BPE cuts into small pieces.

Merging goes on where the tokenizer's own merges end: on the ids that it gives to the words of the
new text. Its merges keep their order, its ids their numbers, and new ids begin behind its special
tokens: a text without a new piece in it has the ids that it always had.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from marco_jax.tokenizers.tokenizer import BytePairTokenizer, Tokenizer

# Embedding tables have a multiple of so many rows: it divides over any tensor axis, and 128 is
# what Qwen2's own are a multiple of.
ROWS = 128
# Written without spaces between words: tokens per word would say nothing.
UNSPACED = ("zh", "ja", "th")

# Ids are handed to the trainer as letters; below are line ends and spaces, in between surrogates.
_FIRST_LETTER, _SURROGATES, _SURROGATES_END = 0x100, 0xD800, 0xE000
_TEXTS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Extension:
    """A tokenizer with new pieces.

    Attributes:
        tokenizer: the larger one.
        first: the first new id; the others follow.
        written: for each new id, the ids that wrote its piece before.
    """

    tokenizer: BytePairTokenizer
    first: int
    written: tuple[tuple[int, ...], ...]

    def rows(self, old: int) -> int:
        """Rows of the larger embedding table, padded; not fewer than the old one's."""
        needed = self.first + len(self.written)
        return max(old, -(-needed // ROWS) * ROWS)

    def grow(self, table: np.ndarray) -> np.ndarray:
        """An embedding table [rows, hidden] with a row for each new piece.

        A new row is the mean of the rows that wrote its piece before, taken in float32. Rows that
        are padding still are as the table's last row, which is padding in a published one.
        """
        old = len(table)
        grown = np.empty((self.rows(old), table.shape[1]), table.dtype)
        grown[:old] = table
        grown[old:] = table[-1]
        for row, ids in enumerate(self.written, start=self.first):
            grown[row] = table[list(ids)].astype(np.float32).mean(axis=0).astype(table.dtype)
        return grown


def extend_vocabulary(
    tokenizer: Tokenizer, texts: Mapping[str, Iterable[str]], pieces: int, characters: int
) -> Extension:
    """Learns new pieces from the texts of some languages, as much of each.

    Args:
        tokenizer: a byte-level BPE, such as Qwen2's.
        texts: by language.
        pieces: how many to learn.
        characters: how much is read of each language.

    Returns:
        the larger tokenizer; it has fewer pieces where the text does not hold so many.

    Raises:
        ValueError: another kind of tokenizer, or no text in a language.
    """
    state = _byte_level_state(tokenizer)
    if pieces < 1:
        raise ValueError(f"the vocabulary is to be extended by {pieces} pieces: give 1 or more")
    letters: set[str] = set()
    words: collections.Counter[str] = collections.Counter()
    for language, found in texts.items():
        before = words.total()
        for word in _words(tokenizer.backend, _some(found, characters)):
            letters.update(word)
            words[word] += 1
        if words.total() == before:
            raise ValueError(f"there is no text in {language} to learn new pieces from")
    merges = _train(words, len(letters), pieces)
    return _extended(tokenizer, state, merges, pieces)


def _byte_level_state(tokenizer: Tokenizer) -> dict[str, Any]:
    """The definition of a byte-level BPE tokenizer, as its tokenizer.json has it."""
    if isinstance(tokenizer, BytePairTokenizer):
        state = json.loads(tokenizer.backend.to_str())
        if state["model"]["type"] == "BPE" and not state["model"].get("byte_fallback"):
            return state
    raise ValueError(
        f"a vocabulary is extended by merging further, which {type(tokenizer).__name__} does not: "
        "give a model with a byte-level BPE tokenizer, such as Qwen2's"
    )


def _some(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)


def _words(backend: tokenizers.Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """The words of texts as the pretokeniser cuts them, a letter an id."""
    block: list[str] = []

    def encoded() -> Iterator[str]:
        for encoding in backend.encode_batch(block, add_special_tokens=False):
            words: dict[int, str] = {}
            for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
                words[word] = words.get(word, "") + _letter(token)
            yield from words.values()

    for text in texts:
        block.append(text)
        if len(block) == _TEXTS_AT_ONCE:
            yield from encoded()
            block.clear()
    yield from encoded()


def _train(words: Mapping[str, int], letters: int, pieces: int) -> list[tuple[str, str]]:
    """Merges of letters, the most frequent first, by the library's own trainer."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Split("\n", behavior="removed")
    # Some merges spell a piece that is there already, along another way: learn a few more.
    trainer = trainers.BpeTrainer(
        vocab_size=letters + pieces + pieces // 8 + 64, min_frequency=2, show_progress=False
    )
    lines = (f"{word}\n" * count for word, count in sorted(words.items()) if len(word) > 1)
    trained.train_from_iterator(lines, trainer)
    return [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]


def _extended(
    tokenizer: BytePairTokenizer,
    state: dict[str, Any],
    merges: Sequence[tuple[str, str]],
    pieces: int,
) -> Extension:
    vocab, old_merges = state["model"]["vocab"], state["model"]["merges"]
    spelling = {token: piece for piece, token in vocab.items()}
    as_text = bool(old_merges) and isinstance(old_merges[0], str)
    known = {tuple(merge.split(" ")) if as_text else tuple(merge) for merge in old_merges}
    first = max(tokenizer.backend.get_vocab(with_added_tokens=True).values()) + 1
    written: list[tuple[int, ...]] = []
    for pair in merges:
        ids = [tuple(map(_token, part)) for part in pair]
        left, right = ("".join(spelling[token] for token in part) for part in ids)
        if left + right not in vocab:
            if len(written) == pieces:
                break
            vocab[left + right] = first + len(written)
            written.append(ids[0] + ids[1])
        if (left, right) not in known:
            known.add((left, right))
            old_merges.append(f"{left} {right}" if as_text else [left, right])
    # A token that only stands in the list of added ones gets the next free id, whatever is said.
    vocab |= {added["content"]: added["id"] for added in state["added_tokens"]}
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    larger = BytePairTokenizer(backend, tokenizer.separator, tokenizer.companions)
    return Extension(larger, first, tuple(written))


def _letter(token: int) -> str:
    code = token + _FIRST_LETTER
    return chr(code if code < _SURROGATES else code + _SURROGATES_END - _SURROGATES)


def _token(letter: str) -> int:
    code = ord(letter)
    return (code if code < _SURROGATES else code + _SURROGATES - _SURROGATES_END) - _FIRST_LETTER


def fertility(tokenizer: Tokenizer, language: str, texts: Sequence[str]) -> dict[str, Any]:
    """How many tokens a language's text takes.

    Returns:
        "tokens", "bytes", "tokens_per_byte", and "tokens_per_word": words stand between white
        space; None for languages that write none.
    """
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    size = sum(len(text.encode()) for text in texts)
    words = sum(len(re.findall(r"\S+", text)) for text in texts)
    return {
        "tokens": tokens,
        "bytes": size,
        "tokens_per_byte": tokens / size if size else None,
        "tokens_per_word": tokens / words if words and language not in UNSPACED else None,
    }


def compare_fertility(
    before: Tokenizer, after: Tokenizer, texts: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """{language: {"before": fertility, "after": fertility}} on the same texts."""
    return {
        language: {
            "before": fertility(before, language, found),
            "after": fertility(after, language, found),
        }
        for language, found in texts.items()
    }


def format_fertility(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """A text table of `compare_fertility`."""

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines = [f"{'':8}{'tokens per word':>24}{'tokens per byte':>24}{'fewer tokens':>16}"]
    for language, row in compared.items():
        old, new = row["before"], row["after"]
        cells = [
            f"{number(old[name], digits):>11} -> {number(new[name], digits):<8}"
            for name, digits in (("tokens_per_word", 2), ("tokens_per_byte", 3))
        ]
        saved = 1 - new["tokens"] / old["tokens"] if old["tokens"] else 0.0
        lines.append(f"{language:8}{cells[0]:>24}{cells[1]:>24}{saved:>15.1%}")
    return "\n".join(lines)
