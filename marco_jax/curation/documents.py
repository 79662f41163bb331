"""The document or sentence pair that curation stages pass on, and its conversion from records."""

import dataclasses
import hashlib
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

HTML_START = ("<!doctype html", "<html")


@dataclasses.dataclass(frozen=True)
class RawDocument:
    """A text under curation, with its metadata.

    A sentence pair has the text "source TAB target" and a language "xx-yy". `claimed` is the
    language given by the file, `stage` and `reason` tell where and why a document was rejected,
    `cluster` is the number of its duplicates with itself, `masked` counts masked personal data,
    `origin` is a hash of where it was read, and `scores` holds the measurements of rules. The
    fields are a Beam schema.
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
    origin: int = 0
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def rejected(self, stage: str, reason: str) -> "RawDocument":
        """The same document, marked as rejected."""
        return dataclasses.replace(self, stage=stage, reason=reason)

    @property
    def is_pair(self) -> bool:
        """Whether it is a pair of sentences."""
        return "-" in self.language

    @property
    def host(self) -> str:
        """The host of its URL, in lower case, without "www."."""
        try:
            host = urllib.parse.urlsplit(self.url).hostname or ""
        except ValueError:
            return ""
        return host.lower().removeprefix("www.")

    def to_state(self) -> dict[str, Any]:
        """The fields that differ from their defaults, for the next stage."""
        return {name: value for name, value in vars(self).items() if value != _DEFAULTS[name]}

    def to_row(self) -> dict[str, Any]:
        """The record that is written for users; empty fields are left out."""
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


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(RawDocument)}


def document_of(record: Mapping[str, Any]) -> RawDocument:
    """Makes a document of a file's record; a missing id becomes a hash of the content.

    Raises:
        ValueError: the record has neither text nor HTML.
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
    # A truncated JSON escape leaves a lone surrogate, which UTF-8 cannot encode.
    page = (text or html or "").encode("utf-8", "replace").decode("utf-8")
    return RawDocument(str(key), page, url=url, claimed=claimed)


def is_tsv(path: str) -> bool:
    """Whether a file holds sentence pairs (TSV)."""
    return path.removesuffix(".gz").removesuffix(".zst").endswith(".tsv")


def pair_of(record: Mapping[str, Any], path: str) -> RawDocument:
    """Makes a sentence pair of a TSV line; its languages are in the file's name ("news.en-kk.tsv").

    Raises:
        ValueError: the line does not have two columns, or the name has no languages.
    """
    codes = re.search(r"(?<![a-z])([a-z]{2})-([a-z]{2})(?![a-z])", path.rpartition("/")[2])
    if not codes:
        raise ValueError("the file's name does not contain two languages: name it as en-kk.tsv")
    if record["text"].count("\t") != 1:
        raise ValueError("not two columns")
    text = f"{codes.group()}\t{record['text']}"
    key = hashlib.blake2b(text.encode("utf-8"), digest_size=12).hexdigest()
    return RawDocument(key, record["text"], codes.group())
