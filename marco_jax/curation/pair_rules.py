"""Rules that reject sentence pairs which are not translations."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable

from marco_jax.curation.language import candidate_languages
from marco_jax.ngrams import normalized_words

# Maximum ratio of the sides' lengths; letters of dense scripts count more than once.
RATIO = 3.0
DENSE = {"zh": 3.0, "ja": 2.2, "ko": 1.8}
# Sides of this similarity (difflib's ratio) were not translated.
COPIED = 0.85
# Maximum share of symbols in a side.
SYMBOLS = 0.25
_MARKS = frozenset(".,:;!?'\"()-“”‘’«»„—–…。、，؛؟،।")
# Shorter sides are not checked for language, length ratio and symbols.
LANGUAGE_CHARACTERS = 25

_TOKEN = re.compile(r"https?://\S+|%\(\w+\)\w|%[sd]|\{\w*\}")
_NUMBER = re.compile(r"\d+")

# Similarity in meaning of two texts, 0 to 1, such as the cosine of sentence embeddings.
Similarity = Callable[[str, str], float]


def bad_pair(
    source: str,
    target: str,
    languages: tuple[str, str],
    similarity: Similarity | None = None,
    least: float = 0.7,
) -> str:
    """Returns the reason why a sentence pair is not a translation, or "".

    Args:
        source: text in the first language.
        target: text in the second language.
        languages: the language codes.
        similarity: similarity in meaning, if there is a model; the pair must reach `least`.
        least: minimum similarity.
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
        found = candidate_languages(side) if len(side) >= LANGUAGE_CHARACTERS else (code,)
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
    """The share of a side's visible characters that are not letters, digits or punctuation."""
    signs = "".join(_TOKEN.sub("", text).split())
    if len(signs) < LANGUAGE_CHARACTERS:
        return 0.0
    return sum(unicodedata.category(c)[0] not in "LMN" and c not in _MARKS for c in signs) / len(
        signs
    )


def _numbers(text: str) -> set[int]:
    """Numbers of two digits or more, in any script; smaller ones are often spelt out."""
    return {int(found) for found in _NUMBER.findall(text) if len(found) > 1}
