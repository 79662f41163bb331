"""A document or a pair of sentences on its way through the stages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

HTML_START = ("<!doctype html", "<html")


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with what is known of it; `stage` and `reason` say why it was rejected, if it was.

    A pair is "source TAB target" in a language "xx-yy". `scores` are the rules' numbers.
    """

    id: str
    text: str
    language: str = ""
    url: str = ""
    claimed: str = ""
    stage: str = ""
    reason: str = ""
    cluster: int = 1
    masked: int = 0
    scores: dict[str, float] = dataclasses.field(default_factory=dict)

    def rejected(self, stage: str, reason: str) -> Document:
        """The same document, thrown away."""
        return dataclasses.replace(self, stage=stage, reason=reason)

    @property
    def is_pair(self) -> bool:
        """Whether it is a pair of sentences."""
        return "-" in self.language

    @property
    def host(self) -> str:
        """The host of its address, in lower case, without "www."."""
        try:
            host = urllib.parse.urlsplit(self.url).hostname or ""
        except ValueError:
            return ""
        return host.lower().removeprefix("www.")

    def to_state(self) -> dict[str, Any]:
        """Everything, for the next stage."""
        return {name: value for name, value in vars(self).items() if value != _FRESH[name]}

    def to_row(self) -> dict[str, Any]:
        """What users get: fields that say nothing are left out."""
        row = {"id": self.id, "text": self.text, "language": self.language}
        if self.is_pair and self.text.count("\t") == 1:
            (source, target), codes = self.text.split("\t"), self.language.split("-")
            row = {"id": self.id, "source": source, "target": target}
            row |= {"source_language": codes[0], "target_language": codes[1]}
        if self.url:
            row["url"] = self.url
        if self.stage:
            return {**row, "stage": self.stage, "reason": self.reason, "scores": self.scores}
        return {**row, "cluster_size": self.cluster}


_FRESH = {field.name: field.default for field in dataclasses.fields(Document)}


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
    # Half a surrogate is what a cut JSON escape leaves: it is no character.
    page = (text or html or "").encode("utf-8", "replace").decode("utf-8")
    return Document(str(key), page, url=url, claimed=claimed)


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
