"""Rules about one document's text: each tells why a text is no prose, or nothing."""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Callable

from marco_jax.curation.thresholds import thresholds_of

UNSPACED = frozenset({"zh", "ja", "th", "my", "km", "lo"})
FINAL = tuple(".!?…。！？।॥؟۔።:;\"”»)」』'’")
SHORTEST = 120
# A character of Chinese or Japanese says about as much as three of an alphabet.
SHORTEST_DENSE = 40

_LINK = re.compile(r"\]\([^)]*\)|https?://|www\.")
_LOG = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\b(INFO|WARN|ERROR|DEBUG)\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{60,}")
_CODE = re.compile(r"[{};]|=>|==|\(\)|\bfunction\b|\bvar\b|\bconst\b")
_TEASER = re.compile(r"\.\.\.|…|>>|→")
# Prose breaks off less often than once in so many characters.
TEASER_CHARACTERS = 200


def length(text: str, language: str) -> str:
    """Too short to say anything."""
    least = SHORTEST_DENSE if language in ("zh", "ja", "ko") else SHORTEST
    return "short" if sum(not char.isspace() for char in text) < least else ""


def damaged(text: str, language: str) -> str:
    """Characters that were lost, or text decoded as what it was not."""
    from ftfy import badness

    if text.count("\ufffd") > 0.001 * len(text):
        return "replacement characters"
    return "mojibake" if badness.badness(text) > max(2, 0.01 * len(text)) else ""


def machine_text(text: str, language: str) -> str:
    """Logs, encoded data, programs and tables of numbers."""
    lines = _lines(text)
    if sum(bool(_LOG.search(line)) for line in lines) > 0.5 * len(lines):
        return "log"
    if sum(len(run) for run in _BASE64.findall(text)) > 0.3 * len(text):
        return "base64"
    if len(_CODE.findall(text)) > 0.02 * len(text):
        return "code"
    if sum(char.isdigit() for char in text) > 0.25 * len(text):
        return "digits"
    return ""


def letters(text: str, language: str) -> str:
    """Symbols where letters should be."""
    visible = [char for char in text if not char.isspace()]
    share = sum(unicodedata.category(char)[0] in "LM" for char in visible) / max(1, len(visible))
    return "symbols" if share < 0.6 else ""


def links(text: str, language: str) -> str:
    """A list of links, or of the first words of articles elsewhere."""
    lines = _lines(text)
    if len(lines) >= 3 and sum(bool(_LINK.search(line)) for line in lines) > 0.4 * len(lines):
        return "links"
    broken = len(_TEASER.findall(text))
    if broken >= 4 and broken * TEASER_CHARACTERS > len(text):
        return "teasers"
    return ""


def repetition(text: str, language: str) -> str:
    """The same line or phrase over and over."""
    lines = _lines(text)
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    if repeated > thresholds_of(language).duplicate_lines * len(text):
        return "duplicate lines"
    pieces = list(text) if language in UNSPACED else text.split()
    size = 15 if language in UNSPACED else 5
    grams = [tuple(pieces[at : at + size]) for at in range(len(pieces) - size + 1)]
    if len(grams) < 20:
        return ""
    many = sum(count for count in collections.Counter(grams).values() if count > 1)
    return "repeated phrases" if many > 0.4 * len(grams) else ""


def sentences(text: str, language: str) -> str:
    """Words of a plausible length, and lines that end as sentences do."""
    bounds = thresholds_of(language)
    words = text.split()
    if language not in UNSPACED:
        mean = sum(map(len, words)) / max(1, len(words))
        if not bounds.shortest_word * 0.8 <= mean <= bounds.longest_word * 1.5:
            return "word length"
    lines = [line for line in _lines(text) if len(line) > 10]
    if language == "th" or not lines:
        return "" if lines else "short lines"
    ended = sum(line.rstrip().endswith(FINAL) for line in lines) / len(lines)
    if ended < bounds.final_punctuation and not any(mark in text for mark in ".。।۔?!؟።"):
        return "punctuation"
    return ""


RULES: dict[str, Callable[[str, str], str]] = {
    "length": length,
    "damaged": damaged,
    "machine_text": machine_text,
    "letters": letters,
    "links": links,
    "repetition": repetition,
    "sentences": sentences,
}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]
