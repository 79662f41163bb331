"""Rules that reject sentence pairs which are not translations."""

from __future__ import annotations

import collections
import difflib
import functools
import re
import unicodedata

from marco_jax.curation.language import CLOSE, candidate_languages, script_share
from marco_jax.languages import LANGUAGES
from marco_jax.ngrams import normalized_words

# Maximum ratio of the sides' lengths; letters of dense scripts count more than once.
RATIO = 3.0
DENSE = {"zh": 3.0, "ja": 2.2, "ko": 1.8}
# Sides of this similarity (difflib's ratio) were not translated.
COPIED = 0.85
# Maximum share of symbols in a side.
SYMBOLS = 0.25
_MARKS = frozenset(".,:;!?'\"()-“”‘’«»„—–…。、，؛؟،।")
# Shorter sides are not checked for language by words, length ratio and symbols.
LANGUAGE_CHARACTERS = 25
# Minimum share of a side's letters that are of its language's script,.
SCRIPT = 0.2
LATIN = "Latn"
# A side of at least so many words repeats itself if a smaller share of them is different, and the
# other side has this share more.
REPEATED_WORDS, REPEATED = 4, 0.4

_TOKEN = re.compile(r"https?://\S+|%\(\w+\)\w|%[sd]|\{\w*\}")
_NUMBER = re.compile(r"\d+(?:[.,   ٬٫:]\d+)*")
# UTF-8 that was read as Latin-1 has control characters, or signs right behind accented letters.
_GARBLED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]|[\u00c2-\u00f4][\u00a1-\u00a9\u00ac-\u00b6\u00b8\u00b9\u00bc-\u00be]|[\u00c2-\u00c6\u00d0\u00d1][\u00a0-\u00bf]"
)


def bad_pair(source: str, target: str, languages: tuple[str, str]) -> str:
    """Returns the reason why a sentence pair is not a translation, or "".

    Args:
        source: text in the first language.
        target: text in the second language.
        languages: the language codes.
    """
    pair = tuple(unicodedata.normalize("NFC", side).strip() for side in (source, target))
    words = [normalized_words(side) for side in pair]
    if not all(words):
        return "empty"
    if _copied(" ".join(words[0]), " ".join(words[1])):
        return "copy"
    if any(_GARBLED.search(side) or _symbols(side) > SYMBOLS for side in pair):
        return "symbols"
    if _repeats(words[0], words[1]) or _repeats(words[1], words[0]):
        return "repetition"
    sizes = [len(side) * DENSE.get(code, 1.0) for side, code in zip(pair, languages, strict=True)]
    if max(sizes) > RATIO * min(sizes) and max(sizes) > LANGUAGE_CHARACTERS:
        return "length ratio"
    if reason := _wrong_language(pair, languages):
        return reason
    if sorted(_TOKEN.findall(pair[0])) != sorted(_TOKEN.findall(pair[1])):
        return "placeholders"
    if _numbers_differ(*pair):
        return "numbers"
    return ""


def numbers_of(text: str) -> list[str]:
    """Significant digits of a text's numbers, in ASCII: 1,500 and 1.5 (thousand) are both "15"."""
    found = []
    for number in _NUMBER.findall(text):
        digits = "".join(str(unicodedata.digit(char)) for char in number if char.isdigit())
        found.append(digits.strip("0") or "0")
    return found


def unmatched(ours: list[str], theirs: list[str]) -> tuple[int, list[str], list[str]]:
    """The number of elements that two lists share, and the elements left of each."""
    one, two = collections.Counter(ours), collections.Counter(theirs)
    left = (one - two).elements(), (two - one).elements()
    return (one & two).total(), list(left[0]), list(left[1])


def _numbers_differ(source: str, target: str) -> bool:
    """Whether each side has a number that the other lacks; a single one may be spelt out.

    The hours of the afternoon differ by twelve in some languages.
    """
    _, ours, theirs = unmatched(numbers_of(source), numbers_of(target))
    if len("".join(ours)) < 1 or len("".join(theirs)) < 1:
        return False
    # A number that was split or joined, such as 19.30 and 7:30, is compared by its parts.
    parts = [{int(p) for p in re.findall(r"\d+", side)} for side in (source, target)]
    rest = parts[0] - parts[1], parts[1] - parts[0]
    hours = {(number + 12) % 24 for number in rest[0] if number < 24}
    return bool(rest[0] and rest[1] and not hours & rest[1])


def _copied(source: str, target: str) -> bool:
    """Whether two normalised sides are nearly equal; bounds of the ratio spare most comparisons."""
    match = difflib.SequenceMatcher(None, source, target, autojunk=False)
    bounds = match.real_quick_ratio, match.quick_ratio, match.ratio
    return all(bound() >= COPIED for bound in bounds)


def _repeats(words: list[str], others: list[str]) -> bool:
    shares = [len(set(side)) / len(side) for side in (words, others)]
    return len(words) >= REPEATED_WORDS and shares[0] < REPEATED < shares[1] - REPEATED / 2


def _wrong_language(pair: tuple[str, ...], languages: tuple[str, str]) -> str:
    """Tells sides in another language, or in each other's: by script, and by words if long."""
    scripts = [_script(code) for code in languages]
    if scripts[0] != scripts[1] and all(scripts):
        own = [script_share(side, script) for side, script in zip(pair, scripts, strict=True)]
        other = [
            script_share(side, script) for side, script in zip(pair, scripts[::-1], strict=True)
        ]
        if other[0] > own[0] and other[1] > own[1]:
            return "swapped"
        for code, share in zip(languages, own, strict=True):
            if share < SCRIPT:
                return f"not {code}"
    found = [_found(side) for side in pair]
    one, two = languages
    if _is_other(found[0], one, two) and _is_other(found[1], two, one):
        return "swapped"
    for code, names in zip(languages, found, strict=True):
        if names and code not in names and "" not in names:
            return f"not {code}"
    return ""


@functools.lru_cache(maxsize=256)
def _script(code: str) -> str:
    """The script of a language, "" if unknown."""
    return (LANGUAGES[code].script or LATIN) if code in LANGUAGES else ""


def _found(side: str) -> tuple[str, ...]:
    return candidate_languages(side) if len(side) >= LANGUAGE_CHARACTERS else ()


def _is_other(found: tuple[str, ...], own: str, other: str) -> bool:
    """Whether a side looks like the other language, which is not easily taken for its own."""
    return other in found and own not in found and {own, other} not in CLOSE


def _symbols(text: str) -> float:
    """The share of a side's visible characters that are not letters, digits or punctuation."""
    signs = "".join(_TOKEN.sub("", text).split())
    if len(signs) < LANGUAGE_CHARACTERS:
        return 0.0
    return sum(unicodedata.category(c)[0] not in "LMN" and c not in _MARKS for c in signs) / len(
        signs
    )
