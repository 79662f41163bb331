"""The stages that need one document alone, in the order of the paper.

Marco-LLM (arXiv 2412.04003, on web data) names the order: main content, address, language, rules,
perplexity, duplicates. Personal data and benchmark items come after.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Callable

from marco_jax.curation import language as languages
from marco_jax.curation.documents import HTML_START, Document
from marco_jax.curation.rules import DAMAGE, LENGTH, RULES, Rule, Text, judge
from marco_jax.curation.urls import bad_url
from marco_jax.languages import LANGUAGES

# Perplexity of texts in languages, as bits a byte: models of any vocabulary compare.
Perplexity = Callable[[list[str], list[str]], list[float]]

# Of a text's letters, this share is in the script of its language.
LEAST_IN_SCRIPT = 0.5


def prepare(document: Document, blocked: frozenset[str]) -> Document:
    """The document after extraction and address, its text normalised."""
    # An address costs least to judge: what it condemns needs no extraction.
    if reason := document.url and bad_url(document.url, blocked):
        return document.rejected("url", reason)
    document = _extract(document)
    if document.stage:
        return document
    return dataclasses.replace(document, text=normalised(document.text))


def judged(document: Document, foreign: float, accepted: frozenset[str]) -> Document:
    """The document after language and rules; rejected at the first failure.

    Args:
        document: prepared.
        foreign: the largest share of lines in another language.
        accepted: codes of languages to keep; empty for all.
    """
    if not document.text:
        return document.rejected("boilerplate", "nothing else")
    scores: dict[str, float] = {}
    document = dataclasses.replace(document, scores=scores)
    if rule := judge(Text(document.text), DAMAGE[:2], scores):
        return _broken(document, rule)
    found = languages.identify(document.text, document.claimed)
    document = dataclasses.replace(document, language=found)
    text = Text(document.text, found)
    if rule := judge(text, (LENGTH, *DAMAGE[2:]), scores):
        return _broken(document, rule)
    if document.claimed and found != document.claimed:
        return document.rejected("language", f"not {document.claimed}")
    if accepted and found not in accepted:
        return document.rejected("language", "not asked for")
    script = LANGUAGES[found].script if found in LANGUAGES else ""
    scores["script"] = round(languages.in_script(document.text, script), 4)
    if scores["script"] < LEAST_IN_SCRIPT:
        return document.rejected("language", "script")
    scores["mixed"] = round(languages.foreign_share(document.text, found), 4)
    if scores["mixed"] > foreign:
        return document.rejected("language", "mixed")
    rule = judge(text, RULES, scores)
    return _broken(document, rule) if rule else document


def normalised(text: str) -> str:
    """The text decoded rightly, in NFC, without control characters."""
    import ftfy

    # Width, quotes and ligatures are the author's: only what was decoded wrongly is put right.
    text = ftfy.fix_text(
        text,
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        normalization="NFC",
    )
    return text.translate(_UNWANTED).strip()


# Control characters, marks of order and of direction, and the byte order mark.
_UNWANTED = {
    code: None
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x200B, 0xFEFF, 0x00AD)
    if chr(code) not in "\n\t" and unicodedata.category(chr(code)) in ("Cc", "Cf")
}


def _broken(document: Document, rule: Rule) -> Document:
    return document.rejected(rule.stage, rule.reason)


def _extract(document: Document) -> Document:
    if not document.text.lstrip()[:15].lower().startswith(HTML_START):
        return document
    import trafilatura

    try:
        text = trafilatura.extract(document.text, include_comments=False, favor_precision=True)
    except (ValueError, RecursionError):
        return document.rejected("extraction", "unreadable page")
    if not text:
        return document.rejected("extraction", "no main content")
    return dataclasses.replace(document, text=text)
