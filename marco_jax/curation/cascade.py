"""The stages that need only one document: extraction, URL, language and rules.

Marco-LLM (arXiv 2412.04003, on web data) gives the order: main content, URL, language, rules,
perplexity, duplicates. Personal data and benchmark items follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from marco_jax.curation import language as languages
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.extraction import extracted, normalised
from marco_jax.curation.rules import DAMAGE, LENGTH, RULES, MeasuredText, Rule, first_broken_rule
from marco_jax.curation.urls import bad_url
from marco_jax.languages import LANGUAGES

# (texts, languages) -> perplexity in bits per byte, which is comparable across vocabularies.
Perplexity = Callable[[list[str], list[str]], list[float]]

# Minimum share of a text's letters in the script of its language. It is low because a page may
# consist mostly of foreign names; a romanised text has almost no letters of the script.
MIN_SCRIPT_SHARE = 0.15


def prepare(document: RawDocument, blocked: frozenset[str]) -> RawDocument:
    """Checks the URL, extracts the main content and normalises the text."""
    # The URL is cheapest to check, and saves the extraction of rejected pages.
    if reason := document.url and bad_url(document.url, blocked):
        return document.rejected("url", reason)
    document = extracted(document)
    if document.stage:
        return document
    return dataclasses.replace(document, text=normalised(document.text))


def apply_rules(document: RawDocument, foreign: float, accepted: frozenset[str]) -> RawDocument:
    """Identifies the language and applies the rules; the first failure rejects the document.

    Args:
        document: a document after `prepare`.
        foreign: maximum share of text in lines of another language; such lines are removed.
        accepted: codes of languages to keep; empty for all.
    """
    if not document.text:
        return document.rejected("boilerplate", "nothing else")
    scores: dict[str, float] = {}
    document = dataclasses.replace(document, scores=scores)
    if rule := first_broken_rule(MeasuredText(document.text), DAMAGE[:2], scores):
        return _rejected_by(document, rule)
    found = languages.identify(document.text, document.claimed)
    document = dataclasses.replace(document, language=found)
    text = MeasuredText(document.text, found)
    if rule := first_broken_rule(text, (LENGTH, *DAMAGE[2:]), scores):
        return _rejected_by(document, rule)
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
    document, text = dataclasses.replace(document, text=own), MeasuredText(own, found)
    rule = first_broken_rule(text, (LENGTH, *RULES), scores)
    return _rejected_by(document, rule) if rule else document


def _rejected_by(document: RawDocument, rule: Rule) -> RawDocument:
    return document.rejected(rule.stage, rule.reason)
