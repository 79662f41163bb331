"""Quality rules of a document's text: measurements that lie within bounds for prose.

A rule is a number and its bounds, so that a report can show the distribution of the numbers. The
order is the paper's (arXiv 2412.04003): cheap and certain rules come first.
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
# Minimum number of visible characters. A Chinese or Japanese character carries about as much
# information as three letters.
SHORTEST, SHORTEST_DENSE = 120, 40
DENSE = frozenset({"zh", "ja", "ko"})
# Prose has fewer ellipses and similar breaks than one in so many characters.
TEASER_CHARACTERS = 200
# Shares of words are not measured in texts with fewer words.
FEWEST_WORDS = 40

# Minimum share of stop words. News and web texts have 0.2 to 0.5, random words of a language's
# letters at most 0.17. In languages without spaces these are shares of characters.
STOP_WORDS = {"zh": 0.04, "ja": 0.1, "th": 0.25, "": 0.15}

# A Markdown link, of which the group is the text shown, or a URL.
_TARGET = r"\]\([^()]*(?:\([^()]*\)[^()]*)*\)"
_LINK = re.compile(rf"\[([^\[\]]*){_TARGET}|{_TARGET}|https?://\S+|www\.\S+")
# A line with links is prose if it has so many letters beside them, and more than they show. Items
# of lists that begin with a link are not, nor lines that end in a URL, as headlines do.
PROSE_LETTERS, PROSE_LETTERS_DENSE = 40, 15
# After a URL, these end a sentence or a Markdown link.
_ENDS_OF_PROSE = (")", "]", *FINAL)
_LINKED_ITEM = re.compile(
    r"(?:[-*+•‣▪·>|]|\d+[.)])[\s*_`|]*(?:\[?!?\[[^\[\]]*\]\(|https?://|www\.)"
)
_URL = re.compile(r"https?://|www\.")
_LOG = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\b(INFO|WARN|ERROR|DEBUG)\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{60,}")
_CODE = re.compile(r"[{};]|=>|==|\(\)|\bfunction\b|\bvar\b|\bconst\b")
_TEASER = re.compile(r"\.\.\.|…|>>|→")
# Punctuation between words, not within words as apostrophes and hyphens.
_MARK = re.compile(r"[.!?…。！？।॥؟۔።,;:،؛、，；：]")
_NONE = float("inf")


class MeasuredText:
    """A text with cached properties that several rules use."""

    def __init__(self, text: str, language: str = "") -> None:
        """Wraps a text of a language."""
        self.text, self.language = text, language

    @functools.cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, stripped."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @functools.cached_property
    def words(self) -> list[str]:
        """Runs of characters between spaces."""
        return self.text.split()

    @functools.cached_property
    def visible(self) -> int:
        """Number of characters without spaces."""
        return sum(map(len, self.words))

    @functools.cached_property
    def navigation(self) -> frozenset[str]:
        """The lines that are mostly links."""
        return frozenset(line for line in self.lines if _is_navigation(line, self.language))

    def share_of_lines(self, found: Callable[[str], bool]) -> float:
        """The share of lines for which `found` is true."""
        return sum(map(bool, map(found, self.lines))) / max(1, len(self.lines))


@dataclasses.dataclass(frozen=True)
class Rule:
    """A measurement that must lie within bounds, which depend on the text's language."""

    stage: str
    reason: str
    measure: Callable[[MeasuredText], float]
    bounds: Callable[[str], tuple[float, float]]

    def broken(self, value: float, language: str) -> bool:
        """Whether the number is out of bounds."""
        low, high = self.bounds(language)
        return not low <= value <= high


def _damage(text: MeasuredText) -> float:
    from ftfy import badness

    return badness.badness(text.text) / max(200, len(text.text))


def _digits(text: MeasuredText) -> float:
    return sum(map(str.isdigit, text.text)) / max(1, text.visible)


def _letters(text: MeasuredText) -> float:
    signs = collections.Counter("".join(text.words))
    letters = sum(n for char, n in signs.items() if unicodedata.category(char)[0] in "LM")
    return letters / max(1, text.visible)


def _is_navigation(line: str, language: str) -> bool:
    """Whether a line is mostly links, rather than a sentence with links in it."""
    shown = "".join(found[1] or "" for found in _LINK.finditer(line))
    beside, matches = _LINK.subn("", line)
    if not matches:
        return False
    last = line.split()[-1]
    if _LINKED_ITEM.match(line) or (_URL.search(last) and last[-1] not in _ENDS_OF_PROSE):
        return True
    least = PROSE_LETTERS_DENSE if language in DENSE else PROSE_LETTERS
    letters = sum(map(str.isalpha, beside))
    return letters < least or letters <= sum(map(str.isalpha, shown))


def _links(text: MeasuredText) -> float:
    """The share of lines that are mostly links."""
    return text.share_of_lines(text.navigation.__contains__) if len(text.lines) >= 3 else 0.0


def _linked(text: MeasuredText) -> float:
    """The share of characters in links; those of a link in a sentence are only the text shown."""
    total = linked = 0
    for line in text.lines:
        if line in text.navigation:
            linked += sum(len(found[0]) for found in _LINK.finditer(line))
        else:
            line = _LINK.sub(r"\1", line)
        total += len(line)
    return linked / max(1, total)


def _teasers(text: MeasuredText) -> float:
    broken = len(_TEASER.findall(text.text))
    return broken * TEASER_CHARACTERS / max(1, len(text.text)) if broken >= 4 else 0.0


def _repeated_lines(text: MeasuredText) -> float:
    seen: set[str] = set()
    repeated = 0
    for line in text.lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return repeated / max(1, len(text.text))


def _repeated_phrases(text: MeasuredText) -> float:
    unspaced = text.language in UNSPACED
    pieces = "".join(text.words) if unspaced else text.words
    size = 15 if unspaced else 5
    grams = [tuple(pieces[at : at + size]) for at in range(len(pieces) - size + 1)]
    if len(grams) < 20:
        return 0.0
    return sum(n for n in collections.Counter(grams).values() if n > 1) / len(grams)


def _compressed(text: MeasuredText) -> float:
    """Compressed size over size, which is low for repetitive texts."""
    data = text.text.encode("utf-8", "replace")
    return len(zlib.compress(data, 6)) / max(1, len(data)) if len(data) > 500 else 1.0


def _variety(text: MeasuredText) -> float:
    """The share of different words among the first 200, which is low for lists of keywords."""
    words = [word.casefold() for word in text.words[:200]]
    return len(set(words)) / len(words) if len(words) >= FEWEST_WORDS else 1.0


def _word_length(text: MeasuredText) -> float:
    # Not measurable without spaces between words: return a value within all bounds.
    return 5.0 if text.language in UNSPACED else text.visible / max(1, len(text.words))


def _word_bounds(language: str) -> tuple[float, float]:
    if language in UNSPACED:
        return 0.0, _NONE
    bounds = thresholds_of(language)
    return bounds.shortest_word * 0.8, bounds.longest_word * 1.5


def _ended(text: MeasuredText) -> float:
    """The share of lines that end with sentence punctuation."""
    lines = [line for line in text.lines if len(line) > 10]
    if not lines or _MARK.search(text.text):
        return 1.0 if lines else 0.0
    return sum(line.endswith(FINAL) for line in lines) / len(lines)


def _stop_words(text: MeasuredText) -> float:
    """The share of stop words; a share of characters in languages without spaces."""
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
    return (SHORTEST_DENSE if language in DENSE else SHORTEST), _NONE


# Checked before language identification, which damaged text would confuse.
DAMAGE = (
    Rule(
        "damaged",
        "replacement characters",
        lambda text: text.text.count("\ufffd") / max(1, len(text.text)),
        _most(0.001),
    ),
    Rule("damaged", "mojibake", _damage, _most(0.01)),
)
MACHINE = (
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
ALL_RULES = (*DAMAGE, LENGTH, *MACHINE, *RULES)


def first_broken_rule(
    text: MeasuredText, rules: tuple[Rule, ...], measured: dict[str, float]
) -> Rule | None:
    """The first rule that a text breaks; adds all measurements to `measured` by reason."""
    for rule in rules:
        value = measured[rule.reason] = round(rule.measure(text), 4)
        if rule.broken(value, text.language):
            return rule
    return None
