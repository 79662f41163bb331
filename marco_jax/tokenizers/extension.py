"""Vocabulary extension: new tokens for languages that a byte-level BPE cuts into short tokens.

BPE training continues on the token ids of the words of new text, after the tokenizer's existing
merges. Existing merges and ids stay the same, and new ids follow the special tokens, so a text
without any new token is encoded as before.
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

# The number of rows of embedding tables is a multiple of this, as in Qwen2, so that tensor axes
# divide it.
ROWS = 128
# Languages without spaces between words, for which tokens per word is not a useful metric.
UNSPACED = ("zh", "ja", "th")

# The trainer gets each id as one character. Characters below the first are skipped because they
# include line ends and spaces; surrogates are skipped because they are not characters.
_FIRST_LETTER, _SURROGATES, _SURROGATES_END = 0x100, 0xD800, 0xE000
_TEXTS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Extension:
    """A tokenizer with new tokens.

    Attributes:
        tokenizer: the larger tokenizer.
        first: the first new id; the others follow it.
        old_ids: for each new token, the ids that encoded it before.
    """

    tokenizer: BytePairTokenizer
    first: int
    old_ids: tuple[tuple[int, ...], ...]

    def rows(self, old: int) -> int:
        """Rows of the larger embedding table, with padding; at least those of the old table."""
        needed = self.first + len(self.old_ids)
        return max(old, -(-needed // ROWS) * ROWS)

    def grow(self, table: np.ndarray) -> np.ndarray:
        """Enlarges an embedding table [rows, hidden] with a row for each new token.

        A new row is the mean, in float32, of the rows of the token's old ids. Padding rows equal
        the old table's last row, which is padding in published tables.
        """
        old = len(table)
        grown = np.empty((self.rows(old), table.shape[1]), table.dtype)
        grown[:old] = table
        grown[old:] = table[-1]
        for row, ids in enumerate(self.old_ids, start=self.first):
            grown[row] = table[list(ids)].astype(np.float32).mean(axis=0).astype(table.dtype)
        return grown


def extend_vocabulary(
    tokenizer: Tokenizer, texts: Mapping[str, Iterable[str]], tokens: int, characters: int
) -> Extension:
    """Learns new tokens from texts by language, of which it reads so many characters of each.

    Returns:
        the larger tokenizer, with fewer new tokens if the text does not yield that many.

    Raises:
        ValueError: another kind of tokenizer, or no text in a language.
    """
    state = _byte_level_state(tokenizer)
    if tokens < 1:
        raise ValueError(f"the vocabulary cannot be extended by {tokens} tokens: give 1 or more")
    letters: set[str] = set()
    words: collections.Counter[str] = collections.Counter()
    for language, found in texts.items():
        before = words.total()
        for word in _words(tokenizer.backend, _first_characters(found, characters)):
            letters.update(word)
            words[word] += 1
        if words.total() == before:
            raise ValueError(f"there is no text in {language} to learn new tokens from")
    merges = _train(words, len(letters), tokens)
    return _extended(tokenizer, state, merges, tokens)


def _byte_level_state(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a byte-level BPE tokenizer's tokenizer.json."""
    if isinstance(tokenizer, BytePairTokenizer):
        state = json.loads(tokenizer.backend.to_str())
        if state["model"]["type"] == "BPE" and not state["model"].get("byte_fallback"):
            return state
    raise ValueError(
        f"vocabulary extension needs BPE merges, which {type(tokenizer).__name__} does not have: "
        "give a model with a byte-level BPE tokenizer, such as Qwen2's"
    )


def _first_characters(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)


def _words(backend: tokenizers.Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """Yields the pretokeniser's words of texts, each with one character per token id."""
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


def _train(words: Mapping[str, int], letters: int, tokens: int) -> list[tuple[str, str]]:
    """Trains a BPE on the words and returns its merges, the most frequent first."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Split("\n", behavior="removed")
    # Some merges make a token that exists already, by another merge: learn a few more.
    trainer = trainers.BpeTrainer(
        vocab_size=letters + tokens + tokens // 8 + 64, min_frequency=2, show_progress=False
    )
    lines = (f"{word}\n" * count for word, count in sorted(words.items()) if len(word) > 1)
    trained.train_from_iterator(lines, trainer)
    return [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]


def _extended(
    tokenizer: BytePairTokenizer,
    state: dict[str, Any],
    merges: Sequence[tuple[str, str]],
    tokens: int,
) -> Extension:
    vocab, old_merges = state["model"]["vocab"], state["model"]["merges"]
    text_of = {token: text for text, token in vocab.items()}
    as_text = bool(old_merges) and isinstance(old_merges[0], str)
    known = {tuple(merge.split(" ")) if as_text else tuple(merge) for merge in old_merges}
    first = max(tokenizer.backend.get_vocab(with_added_tokens=True).values()) + 1
    old_ids: list[tuple[int, ...]] = []
    for pair in merges:
        ids = [tuple(map(_token, part)) for part in pair]
        left, right = ("".join(text_of[token] for token in part) for part in ids)
        if left + right not in vocab:
            if len(old_ids) == tokens:
                break
            vocab[left + right] = first + len(old_ids)
            old_ids.append(ids[0] + ids[1])
        if (left, right) not in known:
            known.add((left, right))
            old_merges.append(f"{left} {right}" if as_text else [left, right])
    # The library ignores the id of an added token that is not in the vocabulary.
    vocab |= {added["content"]: added["id"] for added in state["added_tokens"]}
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    larger = BytePairTokenizer(backend, tokenizer.eos_token, tokenizer.companions)
    return Extension(larger, first, tuple(old_ids))


def _letter(token: int) -> str:
    code = token + _FIRST_LETTER
    return chr(code if code < _SURROGATES else code + _SURROGATES_END - _SURROGATES)


def _token(letter: str) -> int:
    code = ord(letter)
    return (code if code < _SURROGATES else code + _SURROGATES - _SURROGATES_END) - _FIRST_LETTER


def fertility(tokenizer: Tokenizer, language: str, texts: Sequence[str]) -> dict[str, Any]:
    """Counts the tokens of a language's texts.

    Returns:
        "tokens", "bytes", "tokens_per_byte", and "tokens_per_word", where words are separated by
        whitespace; None for languages without spaces.
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
    """Fertility of both tokenizers on the same texts: {language: {"before": ..., "after": ...}}."""
    return {
        language: {
            "before": fertility(before, language, found),
            "after": fertility(after, language, found),
        }
        for language, found in texts.items()
    }


def format_fertility(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the result of `compare_fertility` as a text table."""

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
