"""What the stages do with one document: extraction, language and rules.

Marco-LLM (arXiv 2412.04003, on web data) gives the order: main content, URL, language, rules,
perplexity, duplicates. Personal data and benchmark items follow.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import unicodedata

from marco_jax.curation import language as languages
from marco_jax.curation.documents import HTML_START, RawDocument
from marco_jax.curation.rules import (
    DAMAGE,
    LENGTH,
    MACHINE,
    RULES,
    MeasuredText,
    Rule,
    first_broken_rule,
)
from marco_jax.languages import LANGUAGES

# Extracted texts with fewer characters may lack the main content: try a slower extractor.
SHORT_EXTRACT = 500
# Minimum share of a text's letters in the script of its language. It is low because a page may
# consist mostly of foreign names; a romanised text has almost no letters of the script.
MIN_SCRIPT_SHARE = 0.15


def extract_text(document: RawDocument) -> RawDocument:
    """Extracts the main text of an HTML page, and normalises the text of any document."""
    document = _extract(document)
    if document.stage:
        return document
    return dataclasses.replace(document, text=normalised(document.text))


def judge_damage(document: RawDocument) -> RawDocument:
    """Rejects damaged text, of which the language cannot be identified."""
    scores: dict[str, float] = {}
    document = dataclasses.replace(document, scores=scores)
    rule = first_broken_rule(MeasuredText(document.text), DAMAGE, scores)
    return _rejected_by(document, rule) if rule else document


def judge_language(document: RawDocument, foreign: float, accepted: frozenset[str]) -> RawDocument:
    """Identifies the language and removes lines in others; rejects what is not to be kept.

    Args:
        document: a document with normalised text.
        foreign: maximum share of text in lines of another language; such lines are removed.
        accepted: codes of languages to keep; empty for all.
    """
    found = languages.identify(document.text, document.claimed)
    scores = dict(document.scores)
    document = dataclasses.replace(document, language=found, scores=scores)
    if document.claimed and found != document.claimed:
        return document.rejected("language", f"not {document.claimed}")
    if accepted and found not in accepted:
        return document.rejected("language", "not asked for")
    script = LANGUAGES[found].script if found in LANGUAGES else ""
    scores["script"] = round(languages.script_share(document.text, script), 4)
    if scores["script"] < MIN_SCRIPT_SHARE:
        return document.rejected("language", "script")
    own, share = languages.lines_in_language(document.text, found)
    scores["mixed"] = round(share, 4)
    if share > foreign:
        return document.rejected("language", "mixed")
    return dataclasses.replace(document, text=own)


def judge_prose(document: RawDocument) -> RawDocument:
    """Rejects short and machine-made texts, and those that break a rule of their language."""
    scores = dict(document.scores)
    document = dataclasses.replace(document, scores=scores)
    text = MeasuredText(document.text, document.language)
    rule = first_broken_rule(text, (LENGTH, *MACHINE, *RULES), scores)
    return _rejected_by(document, rule) if rule else document


def normalised(text: str) -> str:
    """Repairs mojibake, normalises to NFC and removes control characters."""
    import ftfy

    # Only repair wrong decoding: keep the author's character width, quotes and ligatures.
    text = ftfy.fix_text(
        _redecoded(text),
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        normalization="NFC",
    )
    return text.translate(_UNWANTED).strip()


def _redecoded(text: str) -> str:
    """Undoes one wrong decoding in all lines of a text.

    A page is decoded as a whole, but ftfy detects mojibake line by line. So the most frequent
    repair that ftfy finds for single lines is tried on every line.
    """
    import ftfy
    from ftfy import badness

    if not badness.is_bad(text):
        return text
    lines = text.split("\n")
    plans = collections.Counter(tuple(map(tuple, _plan(line))) for line in lines)
    del plans[()]
    if not plans:
        return text
    plan = max(plans, key=lambda plan: (plans[plan], plan))
    for number, line in enumerate(lines):
        with contextlib.suppress(UnicodeError):
            lines[number] = ftfy.apply_plan(line, list(plan))
    return "\n".join(lines)


def _plan(line: str) -> list[tuple[str, str]]:
    import ftfy

    return [] if line.isascii() else list(ftfy.fix_encoding_and_explain(line).explanation or ())


# Control characters, zero-width space, soft hyphen and byte order mark.
_UNWANTED = {
    code: None
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x200B, 0xFEFF, 0x00AD)
    if chr(code) not in "\n\t" and unicodedata.category(chr(code)) in ("Cc", "Cf")
}


def _rejected_by(document: RawDocument, rule: Rule) -> RawDocument:
    return document.rejected(rule.stage, rule.reason)


def _extract(document: RawDocument) -> RawDocument:
    if not document.text.lstrip()[:15].lower().startswith(HTML_START):
        return document
    import trafilatura

    # fast=True skips trafilatura's fallback extractors, which are tried only for short results.
    extract = functools.partial(
        trafilatura.extract, document.text, include_comments=False, favor_precision=True
    )
    try:
        text = extract(fast=True) or ""
        if len(text) < SHORT_EXTRACT:
            text = extract() or text
    except (ValueError, RecursionError):
        return document.rejected("extraction", "unreadable page")
    if not text:
        return document.rejected("extraction", "no main content")
    # Drop the title if the following text starts with it.
    first, _, rest = text.partition("\n")
    return dataclasses.replace(document, text=rest if rest.startswith(first) else text)
