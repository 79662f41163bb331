"""Identifies the language of a text by py3langid, pycld2 and the language its source claims."""

from __future__ import annotations

import functools
import re
from typing import Any

from marco_jax.curation.malay import malay_evidence

# Languages so similar in writing that short texts are ambiguous.
CLOSE = ({"id", "ms"}, {"hi", "ne"}, {"cs", "sk"}, {"az", "tr"}, {"ru", "uk"})
# Shorter lines are too short to identify their language.
LINE_CHARACTERS = 40
# Characters of a document that are passed to the identifiers.
MAX_CHARACTERS = 1000
# py3langid's answer is preferred to pycld2's if it is more likely by this log-probability (natural
# logarithm). On sentences of news and the web, pycld2 is right in four of five cases below this
# margin, and seldom above.
MARGIN = 10.0
# Evidence (nats) of words for Malay or Indonesian that decides over a model of characters, over the
# identifiers' answer for a line, and over a claim that an identifier agrees with. A line of the
# right language has as much against it in one of 600 of news and one of 70 of articles.
TEXT_EVIDENCE, LINE_EVIDENCE, CLAIM_EVIDENCE = 2.0, 4.0, 8.0
# pycld2 codes that differ from ours, and py3langid codes of varieties, which become the standard
# language if pycld2 identifies that.
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
# pycld2 raises for texts with these characters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def candidate_languages(text: str) -> tuple[str, str]:
    """The language codes by py3langid and by pycld2, "" if pycld2 is not sure."""
    import py3langid

    text = text[:MAX_CHARACTERS]
    return str(py3langid.classify(text)[0]), _pycld2_code(text)


def identify(text: str, claimed: str = "") -> str:
    """Identifies a text's language, which may be outside the 29.

    A claim is accepted if either identifier agrees with it, unless words clearly contradict it for
    Malay and Indonesian. Otherwise identifiers that disagree are decided by py3langid's margin.
    """
    text = text[:MAX_CHARACTERS]
    first, second = candidate_languages(text)
    contradicted = claimed in CLOSE[0] and _against(text, claimed) >= CLAIM_EVIDENCE
    if claimed and claimed in (first, second) and not contradicted:
        return claimed
    found = _decided(text, first, second)
    return _malay_or_indonesian(text) if found in CLOSE[0] else found


def script_share(text: str, script: str) -> float:
    """The share of a text's letters in a script; 1 for scripts that are not listed."""
    if script not in _LETTERS:
        return 1.0
    total = len(_LETTER.findall(text))
    return min(1.0, len(_LETTERS[script].findall(text)) / total) if total else 0.0


def lines_in_language(text: str, language: str) -> tuple[str, float]:
    """Removes lines in another language; also returns their share of characters.

    Only lines of LINE_CHARACTERS or more count, and both identifiers must agree on the other
    language.
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

    # pycld2 is faster; py3langid is not needed if pycld2 confirms the language.
    second = _pycld2_code(line)
    if language in CLOSE[0] and second in CLOSE[0]:
        return _against(line, language) >= LINE_EVIDENCE
    if second in ("", language):
        return False
    return str(py3langid.classify(line)[0]) == second


def _pycld2_code(text: str) -> str:
    import pycld2

    try:
        reliable, _, details = pycld2.detect(_CONTROL.sub(" ", text))
    except pycld2.error:
        return ""
    code = details[0][1]
    return _CODES.get(code, code) if reliable else ""


def _decided(text: str, first: str, second: str) -> str:
    """The likelier of py3langid's and pycld2's language; Malay and Indonesian count as one."""
    if not second or first == second or (first in CLOSE[0] and second in CLOSE[0]):
        return first
    if _VARIETIES.get(first) == second:
        return second
    return second if _gap(text, first, second) < MARGIN else first


def _against(text: str, language: str) -> float:
    """The evidence (nats) of words against one of Malay and Indonesian, for the other."""
    return -malay_evidence(text) if language == "ms" else malay_evidence(text)


def _malay_or_indonesian(text: str) -> str:
    evidence = malay_evidence(text)
    if abs(evidence) > TEXT_EVIDENCE:
        return "ms" if evidence > 0 else "id"
    return str(_malay_detector().detect(text).iso_code)


@functools.cache
def _malay_detector() -> Any:
    """A detector of Indonesian and Malay; of the libraries that know both, it errs least."""
    import langidentify

    pair = langidentify.Language.from_comma_separated("id,ms")
    return langidentify.Detector(langidentify.Model.load(pair))


def _gap(text: str, first: str, second: str) -> float:
    """The log-probability (natural logarithm) of one language over another by py3langid."""
    import py3langid

    scores = {str(code): float(score) for code, score in py3langid.rank(text)}
    return scores[first] - scores.get(second, float("-inf"))
