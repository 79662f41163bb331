"""Which language a text is in: two identifiers, and the claim of whoever collected it."""

from __future__ import annotations

import functools
import re
from typing import Any

from marco_jax.curation.malay import leaning

# Written so alike that a short text does not tell them apart.
CLOSE = ({"id", "ms"}, {"hi", "ne"}, {"cs", "sk"}, {"az", "tr"}, {"ru", "uk"})
# Lines shorter than this say little about their language.
LINE_CHARACTERS = 40
# Characters of a document that the identifiers see.
SEEN = 1000
# py3langid's answer stands over pycld2's where it is so much likelier (natural logarithms): among
# sentences of news and of the web the latter is right in four of five cases below, seldom above.
MARGIN = 10.0
# One word that only one of Malay and Indonesian has may be borrowed; more are not.
MALAY_WORDS = 2
# pycld2's names for what has another code here, and py3langid's for varieties that one standard
# language stands for where pycld2 says so.
_CODES = {"zh-Hant": "zh", "iw": "he", "jw": "jv", "un": "", "xxx": ""}
_VARIETIES = {"wuu": "zh", "arz": "ar"}

# Ranges of letters by script, as ISO 15924 names it.
_SCRIPTS = {
    "Latn": r"A-Za-z\u00aa-\u024f\u1e00-\u1eff",
    "Cyrl": r"\u0400-\u052f",
    "Arab": r"\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc",
    "Hebr": r"\u0590-\u05ff",
    "Grek": r"\u0370-\u03ff\u1f00-\u1fff",
    "Deva": r"\u0900-\u097f",
    "Beng": r"\u0980-\u09ff",
    "Thai": r"\u0e00-\u0e7f",
    "Hang": r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Hani": r"\u3400-\u9fff",
    "Jpan": r"\u3040-\u30ff\u3400-\u9fff",
}
_LETTERS = {script: re.compile(f"[{ranges}]") for script, ranges in _SCRIPTS.items()}
_LETTER = re.compile(r"[^\W\d_]")
# pycld2 refuses text with these.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def candidates(text: str) -> tuple[str, str]:
    """Codes by py3langid and by pycld2; "" where pycld2 is not sure."""
    import py3langid

    text = text[:SEEN]
    return str(py3langid.classify(text)[0]), _second(text)


def identify(text: str, claimed: str = "") -> str:
    """The code of a text's language, which may be none of the 29.

    A claim decides between languages that are written alike, and where the two identifiers differ.
    """
    text = text[:SEEN]
    first, second = candidates(text)
    contradicted = claimed in CLOSE[0] and leaning(text) * (1 if claimed == "ms" else -1) <= -3
    if claimed and claimed in (first, second) and not contradicted:
        return claimed
    if first in CLOSE[0] and second in CLOSE[0] | {""}:
        return _malay_or_indonesian(text)
    if not second or first == second:
        return first
    if _VARIETIES.get(first) == second:
        return second
    return second if _gap(text, first, second) < MARGIN else first


def in_script(text: str, script: str) -> float:
    """Of a text's letters, the share in a script; 1 for scripts that are not listed."""
    if script not in _LETTERS:
        return 1.0
    total = len(_LETTER.findall(text))
    return min(1.0, len(_LETTERS[script].findall(text)) / total) if total else 0.0


def own_lines(text: str, language: str) -> tuple[str, float]:
    """The text without lines in another language, and the share of characters that those had.

    Both identifiers must say so, of a line long enough to tell.
    """
    kept, total, foreign = [], 0, 0
    for line in text.split("\n"):
        if len(line) >= LINE_CHARACTERS:
            total += len(line)
            if _is_foreign(line, language):
                foreign += len(line)
                continue
        kept.append(line)
    return "\n".join(kept) if foreign else text, foreign / total if total else 0.0


def _is_foreign(line: str, language: str) -> bool:
    import py3langid

    # The faster of the two is asked first; where it agrees the other need not be.
    second = _second(line)
    if language in CLOSE[0] and second in CLOSE[0]:
        return leaning(line) * (1 if language == "ms" else -1) <= -MALAY_WORDS
    if second in ("", language):
        return False
    return str(py3langid.classify(line)[0]) == second


def _second(text: str) -> str:
    import pycld2

    try:
        reliable, _, details = pycld2.detect(_CONTROL.sub(" ", text))
    except pycld2.error:
        return ""
    code = details[0][1]
    return _CODES.get(code, code) if reliable else ""


def _malay_or_indonesian(text: str) -> str:
    words = leaning(text)
    if abs(words) >= MALAY_WORDS:
        return "ms" if words > 0 else "id"
    return str(_malay_detector().detect(text).iso_code)


@functools.cache
def _malay_detector() -> Any:
    """Of the libraries that know both, langidentify has the fewest of either wrong."""
    import langidentify

    pair = langidentify.Language.from_comma_separated("id,ms")
    return langidentify.Detector(langidentify.Model.load(pair))


def _gap(text: str, first: str, second: str) -> float:
    """How much likelier one language is than another by py3langid, as a natural logarithm."""
    import py3langid

    scores = {str(code): float(score) for code, score in py3langid.rank(text)}
    return scores[first] - scores.get(second, float("-inf"))
