"""What the stages do with one document: extraction, language and rules.

Marco-LLM (arXiv 2412.04003, on web data) gives the order: main content, URL, language, rules,
perplexity, duplicates. Personal data and benchmark items follow.
"""

from __future__ import annotations

import dataclasses

from marco_jax.curation import language as languages
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.extraction import extracted, normalised
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

# Minimum share of a text's letters in the script of its language. It is low because a page may
# consist mostly of foreign names; a romanised text has almost no letters of the script.
MIN_SCRIPT_SHARE = 0.15


def extract_text(document: RawDocument) -> RawDocument:
    """Extracts the main text of an HTML page, and normalises the text of any document."""
    document = extracted(document)
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


def _rejected_by(document: RawDocument, rule: Rule) -> RawDocument:
    return document.rejected(rule.stage, rule.reason)
