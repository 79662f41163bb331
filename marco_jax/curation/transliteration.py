"""Writes words of any alphabet as classes of consonants, by which names are found across scripts.

A letter outside ASCII is read from its Unicode name: "CYRILLIC SMALL LETTER EL" sounds like L, and
"HEBREW LETTER BET" like B. Vowels, and consonants that stand for vowels in some scripts (h, w, y),
are left out, and consonants that scripts confuse (b, p, f and v; l and r) share a class, as in
Soundex. Chinese characters have no class.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_GROUPS = ("pbfv", "kcgqx", "szj", "td", "lr", "m", "n")
_CLASSES = {letter: group[0].upper() for group in _GROUPS for letter in group}
_DIGRAPHS = re.compile("ch|sh|zh|ph|th|c(?=[eiy])")
_SPOKEN = {"ch": "s", "sh": "s", "zh": "s", "ph": "f", "th": "t", "c": "s"}
_NAME = re.compile(
    r"(?:LETTER|SYLLABLE|CHARACTER|CHOSEONG|JONGSEONG) "
    r"(?:SMALL |FINAL |FARSI |SHORT |LONG |DOTLESS |BYELORUSSIAN-UKRAINIAN )*(\w+)"
)
# Names of letters that are silent or vowels, though they start with a consonant.
_SILENT = {"HARD", "SOFT", "VAV", "WAW", "IEUNG", "SARA", "MAI", "SCHWA"}


@functools.lru_cache(maxsize=1 << 16)
def consonants(word: str) -> str:
    """The classes of a word's consonants, without repetitions: "London" and "Лондон" are LNTN."""
    letters = unicodedata.normalize("NFD", word.casefold())
    spoken = "".join(map(_sound, letters))
    spoken = _DIGRAPHS.sub(lambda found: _SPOKEN[found.group()], spoken)
    classes = [_CLASSES[letter] for letter in spoken if letter in _CLASSES]
    return "".join(c for at, c in enumerate(classes) if at == 0 or classes[at - 1] != c)


@functools.lru_cache(maxsize=1 << 12)
def _sound(letter: str) -> str:
    """The Latin letters of a letter's consonant; "" for vowels, marks and other characters."""
    if letter.isascii():
        return letter
    found = _NAME.search(unicodedata.name(letter, ""))
    if not found or found.group(1) in _SILENT:
        return ""
    name = found.group(1).lower()
    # The Cyrillic el, em, en, er, es and ef.
    consonant = name[1:2] if name[0] == "e" and len(name) == 2 else name[0]
    digraph = _DIGRAPHS.match(name)
    return digraph.group() if digraph else consonant if consonant in _CLASSES else ""
