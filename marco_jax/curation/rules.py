"""Rules about one document's text: each measures something that prose has within bounds.

A rule is a number and its bounds, so that a report can show how the numbers lie about them. The
order is the paper's (arXiv 2412.04003): what is cheap and certain comes first.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import unicodedata
import zlib
from collections.abc import Callable

from marco_jax.curation.stop_words import stop_words
from marco_jax.curation.thresholds import thresholds_of
from marco_jax.ngrams import normalized_words

UNSPACED = frozenset({"zh", "ja", "th", "my", "km", "lo"})
FINAL = tuple(".!?…。！？।॥؟۔።:;\"”»)」』'’")
# Visible characters. One of Chinese or Japanese says about as much as three of an alphabet.
SHORTEST, SHORTEST_DENSE = 120, 40
# Prose breaks off less often than once in so many characters.
TEASER_CHARACTERS = 200
# Texts with fewer words are too short for shares of words to mean anything.
FEWEST_WORDS = 40

# Texts of news and of the web have 0.2 to 0.5, words made of a language's letters at random at most
# 0.17. Where words are unspaced these are shares of characters.
STOP_WORDS = {"zh": 0.04, "ja": 0.1, "th": 0.25, "": 0.15}

_LINK = re.compile(r"\]\([^)]*\)|https?://|www\.")
_LOG = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\b(INFO|WARN|ERROR|DEBUG)\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{60,}")
_CODE = re.compile(r"[{};]|=>|==|\(\)|\bfunction\b|\bvar\b|\bconst\b")
_TEASER = re.compile(r"\.\.\.|…|>>|→")
# What stands between words of prose; an apostrophe or a hyphen stands within.
_MARK = re.compile(r"[.!?…。！？।॥؟۔።,;:،؛、，；：]")
_NONE = float("inf")


class Text:
    """A text with what several rules ask about it, found once."""

    def __init__(self, text: str, language: str = "") -> None:
        """Wraps a text of a language."""
        self.text, self.language = text, language

    @functools.cached_property
    def lines(self) -> list[str]:
        """Lines that say something."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @functools.cached_property
    def words(self) -> list[str]:
        """Runs between spaces."""
        return self.text.split()

    @functools.cached_property
    def visible(self) -> int:
        """Characters that are no spaces."""
        return sum(map(len, self.words))

    def share_of_lines(self, found: Callable[[str], bool]) -> float:
        """Of the lines, the share of which something is true."""
        return sum(map(bool, map(found, self.lines))) / max(1, len(self.lines))


@dataclasses.dataclass(frozen=True)
class Rule:
    """A number that must lie within the bounds of the text's language."""

    stage: str
    reason: str
    measure: Callable[[Text], float]
    bounds: Callable[[str], tuple[float, float]]

    def broken(self, value: float, language: str) -> bool:
        """Whether the number is out of bounds."""
        low, high = self.bounds(language)
        return not low <= value <= high


def _damage(text: Text) -> float:
    from ftfy import badness

    return badness.badness(text.text) / max(200, len(text.text))


def _digits(text: Text) -> float:
    return sum(map(str.isdigit, text.text)) / max(1, text.visible)


def _letters(text: Text) -> float:
    signs = collections.Counter("".join(text.words))
    letters = sum(n for char, n in signs.items() if unicodedata.category(char)[0] in "LM")
    return letters / max(1, text.visible)


def _links(text: Text) -> float:
    return text.share_of_lines(_LINK.search) if len(text.lines) >= 3 else 0.0


def _linked(text: Text) -> float:
    """The share of characters that are addresses, or stand in brackets before one."""
    spans = re.findall(r"\[[^\]]*\]\([^)]*\)|https?://\S+|www\.\S+", text.text)
    return sum(map(len, spans)) / max(1, len(text.text))


def _teasers(text: Text) -> float:
    broken = len(_TEASER.findall(text.text))
    return broken * TEASER_CHARACTERS / max(1, len(text.text)) if broken >= 4 else 0.0


def _repeated_lines(text: Text) -> float:
    seen: set[str] = set()
    repeated = 0
    for line in text.lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return repeated / max(1, len(text.text))


def _repeated_phrases(text: Text) -> float:
    unspaced = text.language in UNSPACED
    pieces = "".join(text.words) if unspaced else text.words
    size = 15 if unspaced else 5
    grams = [tuple(pieces[at : at + size]) for at in range(len(pieces) - size + 1)]
    if len(grams) < 20:
        return 0.0
    return sum(n for n in collections.Counter(grams).values() if n > 1) / len(grams)


def _compressed(text: Text) -> float:
    """How many bytes are left of one: texts that repeat themselves say little."""
    data = text.text.encode("utf-8", "replace")
    return len(zlib.compress(data, 6)) / max(1, len(data)) if len(data) > 500 else 1.0


def _variety(text: Text) -> float:
    """Of the first words, the share that are different: lists of search words are made of few."""
    words = [word.casefold() for word in text.words[:200]]
    return len(set(words)) / len(words) if len(words) >= FEWEST_WORDS else 1.0


def _word_length(text: Text) -> float:
    # Within the bounds of every language, where words are not spaced.
    return 5.0 if text.language in UNSPACED else text.visible / max(1, len(text.words))


def _word_bounds(language: str) -> tuple[float, float]:
    if language in UNSPACED:
        return 0.0, _NONE
    bounds = thresholds_of(language)
    return bounds.shortest_word * 0.8, bounds.longest_word * 1.5


def _ended(text: Text) -> float:
    """The share of lines that end as sentences do."""
    lines = [line for line in text.lines if len(line) > 10]
    if not lines or _MARK.search(text.text):
        return 1.0 if lines else 0.0
    return sum(line.endswith(FINAL) for line in lines) / len(lines)


def _stop_words(text: Text) -> float:
    """The share of words that hold sentences together; of characters where words are unspaced."""
    known = stop_words(text.language)
    pieces = normalized_words(text.text)
    if text.language in UNSPACED:
        pieces = list("".join(pieces))
    if not known or len(pieces) < FEWEST_WORDS:
        return 1.0
    return sum(piece in known for piece in pieces) / len(pieces)


def _least(value: float) -> Callable[[str], tuple[float, float]]:
    return lambda language: (value, _NONE)


def _most(value: float) -> Callable[[str], tuple[float, float]]:
    return lambda language: (0.0, value)


def _shortest(language: str) -> tuple[float, float]:
    return (SHORTEST_DENSE if language in ("zh", "ja", "ko") else SHORTEST), _NONE


# What confuses the identifiers is told before the language is asked.
DAMAGE = (
    Rule(
        "damaged",
        "replacement characters",
        lambda text: text.text.count("\ufffd") / max(1, len(text.text)),
        _most(0.001),
    ),
    Rule("damaged", "mojibake", _damage, _most(0.01)),
    Rule("machine_text", "log", lambda text: text.share_of_lines(_LOG.search), _most(0.5)),
    Rule(
        "machine_text",
        "base64",
        lambda text: sum(map(len, _BASE64.findall(text.text))) / max(1, len(text.text)),
        _most(0.3),
    ),
    Rule(
        "machine_text",
        "code",
        lambda text: len(_CODE.findall(text.text)) / max(1, len(text.text)),
        _most(0.02),
    ),
    Rule("machine_text", "digits", _digits, _most(0.25)),
)
LENGTH = Rule("length", "short", lambda text: float(text.visible), _shortest)
RULES = (
    Rule("letters", "symbols", _letters, _least(0.6)),
    Rule("links", "links", _links, _most(0.4)),
    Rule("links", "addresses", _linked, _most(0.4)),
    Rule("links", "teasers", _teasers, _most(1.0)),
    Rule(
        "repetition",
        "duplicate lines",
        _repeated_lines,
        lambda language: (0.0, thresholds_of(language).duplicate_lines),
    ),
    Rule("repetition", "repeated phrases", _repeated_phrases, _most(0.4)),
    Rule("repetition", "compressible", _compressed, _least(0.1)),
    Rule("repetition", "few words", _variety, _least(0.2)),
    Rule("sentences", "word length", _word_length, _word_bounds),
    Rule(
        "sentences",
        "punctuation",
        _ended,
        lambda language: (
            0.0 if language == "th" else thresholds_of(language).final_punctuation,
            1.0,
        ),
    ),
    Rule(
        "stop_words",
        "few stop words",
        _stop_words,
        lambda language: (STOP_WORDS.get(language, STOP_WORDS[""]), 1.0),
    ),
)
EVERY = (*DAMAGE, LENGTH, *RULES)


def judge(text: Text, rules: tuple[Rule, ...], measured: dict[str, float]) -> Rule | None:
    """The first rule that a text breaks; the numbers are added to `measured` by reason."""
    for rule in rules:
        value = measured[rule.reason] = round(rule.measure(text), 4)
        if rule.broken(value, text.language):
            return rule
    return None
