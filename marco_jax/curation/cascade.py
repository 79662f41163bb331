"""The stages that need one document alone, in the order of the paper.

Marco-LLM (arXiv 2412.04003, on web data) names the order: main content, address, language, rules,
perplexity, duplicates. Personal data and benchmark items come after.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import unicodedata
from collections.abc import Callable

from marco_jax.curation import language as languages
from marco_jax.curation.documents import HTML_START, Document
from marco_jax.curation.rules import DAMAGE, LENGTH, RULES, Rule, Text, judge
from marco_jax.curation.urls import bad_url
from marco_jax.languages import LANGUAGES

# Perplexity of texts in languages, as bits a byte: models of any vocabulary compare.
Perplexity = Callable[[list[str], list[str]], list[float]]

# Characters of a page that may well be no main content yet.
LITTLE = 500
# Of a text's letters, this share is in the script of its language: foreign names may be most of a
# page, but a romanised text has next to none.
LEAST_IN_SCRIPT = 0.15


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
        foreign: the largest share of lines in another language; a smaller one is taken out.
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
    own, share = languages.own_lines(document.text, found)
    scores["mixed"] = round(share, 4)
    if share > foreign:
        return document.rejected("language", "mixed")
    document, text = dataclasses.replace(document, text=own), Text(own, found)
    rule = judge(text, (LENGTH, *RULES), scores)
    return _broken(document, rule) if rule else document


def normalised(text: str) -> str:
    """The text decoded rightly, in NFC, without control characters."""
    import ftfy

    # Width, quotes and ligatures are the author's: only what was decoded wrongly is put right.
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
    """The text with one wrong decoding undone in all of its lines.

    A page is decoded as a whole. Where ftfy is sure of what went wrong with some lines, the same is
    tried on those that it takes for right.
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

    # Other extractors are asked only where trafilatura's own finds next to nothing.
    extract = functools.partial(
        trafilatura.extract, document.text, include_comments=False, favor_precision=True
    )
    try:
        text = extract(fast=True) or ""
        if len(text) < LITTLE:
            text = extract() or text
    except (ValueError, RecursionError):
        return document.rejected("extraction", "unreadable page")
    if not text:
        return document.rejected("extraction", "no main content")
    # The page's title, where it is but the beginning of what follows.
    first, _, rest = text.partition("\n")
    return dataclasses.replace(document, text=rest if rest.startswith(first) else text)
