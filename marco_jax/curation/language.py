"""Which language a text is in: two identifiers, and the claim of whoever collected it."""

from __future__ import annotations

import re
import unicodedata

# Written so alike that a short text does not tell them apart.
CLOSE = ({"id", "ms"}, {"hi", "ne"}, {"cs", "sk"}, {"az", "tr"}, {"ru", "uk"})
# pycld2's names for what has another code here.
_CODES = {"zh-Hant": "zh", "iw": "he", "jw": "jv", "un": ""}
# Lines shorter than this say little about their language.
LINE_CHARACTERS = 40


def candidates(text: str) -> tuple[str, str]:
    """Codes by py3langid and by pycld2; "" where pycld2 is not sure."""
    import py3langid
    import pycld2

    text = text[:4000]
    first = py3langid.classify(text)[0]
    clean = "".join(char for char in text if unicodedata.category(char)[0] != "C" or char == "\n")
    try:
        reliable, _, details = pycld2.detect(clean)
    except pycld2.error:
        return first, ""
    code = details[0][1]
    return first, _CODES.get(code, code) if reliable else ""


def identify(text: str, claimed: str = "") -> str:
    """The code of a text's language.

    A claim decides between languages that are written alike, and where the two identifiers differ.
    """
    first, second = candidates(text)
    if claimed in (first, second) and claimed:
        return claimed
    for group in CLOSE[:1]:
        if claimed in group and {first, second} & group:
            return claimed
        if {first, second} <= group:
            return second
    return first


def foreign_share(text: str, language: str) -> float:
    """The share of a text's characters in lines that both identifiers call another language."""
    total = foreign = 0
    close = next((group for group in CLOSE if language in group), {language})
    for line in re.split(r"\n", text):
        if len(line) < LINE_CHARACTERS:
            continue
        total += len(line)
        first, second = candidates(line)
        if first == second and first not in close:
            foreign += len(line)
    return foreign / total if total else 0.0
