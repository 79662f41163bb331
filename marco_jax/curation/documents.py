"""One document through the stages that need no other document, in the order of the paper.

Marco-LLM (arXiv 2412.04003, section on web data) names the order: main content, address, language,
rules, perplexity, duplicates. Personal data and benchmark items come after.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from marco_jax.curation import language as languages
from marco_jax.curation.rules import RULES
from marco_jax.curation.urls import bad_url

HTML_START = ("<!doctype html", "<html")


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with what is known of it; `stage` and `reason` say why it was rejected, if it was."""

    id: str
    text: str
    language: str = ""
    url: str = ""
    claimed: str = ""
    stage: str = ""
    reason: str = ""
    cluster: int = 1
    masked: int = 0

    def rejected(self, stage: str, reason: str) -> Document:
        """The same document, thrown away."""
        return dataclasses.replace(self, stage=stage, reason=reason)

    def to_row(self) -> dict[str, Any]:
        """What is written: fields that say nothing are left out."""
        row = {"id": self.id, "text": self.text, "language": self.language}
        if "-" in self.language:
            sides, codes = self.text.split("\t"), self.language.split("-")
            row = {"id": self.id, "source": sides[0], "target": sides[1]}
            row |= {"source_language": codes[0], "target_language": codes[1]}
        if self.url:
            row["url"] = self.url
        if self.stage:
            return {**row, "stage": self.stage, "reason": self.reason}
        return {**row, "cluster_size": self.cluster}


def document_of(record: Mapping[str, Any]) -> Document:
    """A record of a file as a document; one without an id is named by its content.

    Raises:
        ValueError: it has neither text nor HTML.
    """
    text, html = record.get("text"), record.get("html")
    url = str(record.get("url") or "")
    if not isinstance(text, str) and not isinstance(html, str):
        raise ValueError("the record has no text")
    key = record.get("id")
    if key is None:
        content = json.dumps([text, html, url], ensure_ascii=False)
        key = hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=12).hexdigest()
    claimed = str(record.get("lang_hint") or record.get("language") or "").partition("-")[0]
    page = text if text else html
    if isinstance(html, str) and not text and html.lstrip()[:15].lower().startswith(HTML_START):
        page = html
    return Document(str(key), page or "", url=url, claimed=claimed)


def is_tsv(path: str) -> bool:
    """Whether a file holds pairs."""
    return path.removesuffix(".gz").removesuffix(".zst").endswith(".tsv")


def pair_of(record: Mapping[str, Any], path: str) -> Document:
    """A line of a TSV; the file's name tells the languages, as in "news.en-kk.tsv".

    Raises:
        ValueError: it has not two columns, or the name tells no languages.
    """
    codes = re.search(r"(?<![a-z])([a-z]{2})-([a-z]{2})(?![a-z])", path.rpartition("/")[2])
    if not codes:
        raise ValueError("the file's name tells no languages: write it as en-kk.tsv")
    if record["text"].count("\t") != 1:
        raise ValueError("not two columns")
    text = f"{codes.group()}\t{record['text']}"
    key = hashlib.blake2b(text.encode("utf-8"), digest_size=12).hexdigest()
    return Document(key, record["text"], codes.group())


def cascade(document: Document, blocked: frozenset[str], foreign: float) -> Document:
    """The document after extraction, address, language and rules; rejected at the first failure.

    Args:
        document: as read.
        blocked: hosts to leave out.
        foreign: the largest share of lines in another language.
    """
    document = _extract(document)
    if document.stage:
        return document
    if reason := document.url and bad_url(document.url, blocked):
        return document.rejected("url", reason)
    document = dataclasses.replace(document, text=_normalised(document.text))
    # Damage confuses the identifiers: it is judged before them.
    if reason := RULES["damaged"](document.text, ""):
        return document.rejected("damaged", reason)
    found = languages.identify(document.text, document.claimed)
    document = dataclasses.replace(document, language=found)
    for stage in ("length", "machine_text"):
        if reason := RULES[stage](document.text, found):
            return document.rejected(stage, reason)
    if document.claimed and found != document.claimed:
        return document.rejected("language", f"not {document.claimed}")
    if languages.foreign_share(document.text, found) > foreign:
        return document.rejected("language", "mixed")
    for stage, rule in RULES.items():
        if reason := rule(document.text, found):
            return document.rejected(stage, reason)
    return document


def _extract(document: Document) -> Document:
    if not document.text.lstrip()[:15].lower().startswith(HTML_START):
        return document
    import trafilatura

    text = trafilatura.extract(document.text, include_comments=False, favor_precision=True)
    if not text:
        return document.rejected("extraction", "no main content")
    return dataclasses.replace(document, text=text)


def _normalised(text: str) -> str:
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
    kept = (
        char for char in text if char in "\n\t\u200c\u200d" or unicodedata.category(char) != "Cc"
    )
    return "".join(kept).strip()
