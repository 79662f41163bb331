"""Rules about one pair of sentences that should say the same."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable

from marco_jax.curation.language import candidates
from marco_jax.ngrams import normalized_words

# Letters of one side for a letter of the other, at most; dense scripts weigh more.
RATIO = 3.0
DENSE = {"zh": 3.0, "ja": 2.2, "ko": 1.8}
# Sides as alike as this (difflib's ratio) were not translated.
COPIED = 0.85
# More than this of a longer side in symbols is no sentence.
SYMBOLS = 0.25
_MARKS = frozenset(".,:;!?'\"()-“”‘’«»„—–…。、，؛؟،।")
# Identifiers are not asked about less.
LANGUAGE_CHARACTERS = 25

_TOKEN = re.compile(r"https?://\S+|%\(\w+\)\w|%[sd]|\{\w*\}")
_NUMBER = re.compile(r"\d+")

# Tells how alike in meaning two texts are, 0 to 1; an embedding's cosine, say.
Similarity = Callable[[str, str], float]


def bad_pair(
    source: str,
    target: str,
    languages: tuple[str, str],
    similarity: Similarity | None = None,
    least: float = 0.7,
) -> str:
    """Why a pair is no translation, or nothing.

    Args:
        source: of the first language.
        target: of the second.
        languages: their codes.
        similarity: of meaning, where there is a model for it; the pair must reach `least`.
        least: similarity that is enough.
    """
    source, target = (unicodedata.normalize("NFC", side).strip() for side in (source, target))
    words = [" ".join(normalized_words(side)) for side in (source, target)]
    if not all(words):
        return "empty"
    if difflib.SequenceMatcher(None, *words, autojunk=False).ratio() >= COPIED:
        return "copy"
    if any(_symbols(side) > SYMBOLS for side in (source, target)):
        return "symbols"
    sizes = [
        len(side) * DENSE.get(code, 1.0)
        for side, code in zip((source, target), languages, strict=True)
    ]
    if max(sizes) > RATIO * min(sizes) and max(sizes) > LANGUAGE_CHARACTERS:
        return "length ratio"
    for side, code in zip((source, target), languages, strict=True):
        found = candidates(side) if len(side) >= LANGUAGE_CHARACTERS else (code,)
        if code not in found and "" not in found:
            return f"not {code}"
    if sorted(_TOKEN.findall(source)) != sorted(_TOKEN.findall(target)):
        return "placeholders"
    if _numbers(source) != _numbers(target):
        return "numbers"
    if similarity and similarity(source, target) < least:
        return "similarity"
    return ""


def _symbols(text: str) -> float:
    """The share of a side's visible characters that neither spell words nor mark sentences."""
    signs = "".join(_TOKEN.sub("", text).split())
    if len(signs) < LANGUAGE_CHARACTERS:
        return 0.0
    return sum(unicodedata.category(c)[0] not in "LMN" and c not in _MARKS for c in signs) / len(
        signs
    )


def _numbers(text: str) -> set[int]:
    """Numbers of two digits or more, whatever the digits of the script: small ones are spelt."""
    return {int(found) for found in _NUMBER.findall(text) if len(found) > 1}
