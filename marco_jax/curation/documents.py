"""The document or sentence pair that curation stages pass on, and its conversion from records."""

import dataclasses
import functools
import hashlib
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from marco_jax.curation.charsets import CHARSET
from marco_jax.curation.http_bodies import FORM
from marco_jax.languages import LANGUAGES, language_code

# Fields of records that are read without `config.fields`; of several the first that is there.
TEXT_FIELDS = ("text", "content")
LANGUAGE_FIELDS = ("lang_hint", "language", "lang")
FIELDS = ("text", "html", "id", "url", "language")

# "eng", "en_US", "eng_Latn" and the like, twice.
_CODE = "[A-Za-z]{2,3}(?:_[A-Za-z]{2,4})?"
_PAIR = re.compile(rf"(?=(?<![A-Za-z_])({_CODE})-({_CODE})(?![A-Za-z_]))")


@dataclasses.dataclass(frozen=True)
class RawDocument:
    """A text under curation, with its metadata.

    A sentence pair has the text "source TAB target" and a language "xx-yy". `claimed` is the
    language given by the file, `stage` and `reason` tell where and why a document was rejected,
    `cluster` is the number of its duplicates with itself, `masked` counts masked personal data,
    `origin` is a hash of where it was read, and `scores` holds the measurements of rules. `form` is
    "html" or "plain" where the file tells which, until the main content is extracted. `charset` is
    empty for UTF-8. The fields are a Beam schema.
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
    charset: str = ""
    form: str = ""

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
        if self.charset:
            row["charset"] = self.charset
        if self.stage:
            return {**row, "stage": self.stage, "reason": self.reason, "scores": self.scores}
        return {**row, "cluster_size": self.cluster}


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(RawDocument)}


def document_of(record: Mapping[str, Any], fields: Mapping[str, str] | None = None) -> RawDocument:
    """Makes a document of a file's record; a missing id becomes a hash of the content.

    Args:
        record: fields of TEXT_FIELDS or "html"; "id", "url", and one of LANGUAGE_FIELDS if known.
            A URL or language that is not text is as good as none, and an id may be a number.
        fields: names that the record has for some of FIELDS; see `config.fields`.

    Raises:
        ValueError: the record has neither text nor HTML.
    """
    fields = fields or {}
    text = _first_text(record, [fields["text"]] if "text" in fields else TEXT_FIELDS)
    html = _first_text(record, [fields.get("html", "html")])
    if not text.strip() and not html.strip():
        raise ValueError("the record has no text")
    url = _first_text(record, [fields.get("url", "url")])
    key = record.get(fields.get("id", "id"))
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        content = json.dumps([text, html, url], ensure_ascii=False)
        key = hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=12).hexdigest()
    names = [fields["language"]] if "language" in fields else LANGUAGE_FIELDS
    page = text if text.strip() else html
    return RawDocument(
        _encodable(str(key)),
        _encodable(page),
        url=_encodable(url),
        claimed=language_code(_first_text(record, names)),
        charset=_first_text(record, [CHARSET]),
        form=str(record.get(FORM, "" if text.strip() else "html")),
    )


def _first_text(record: Mapping[str, Any], names: Any) -> str:
    """The first field that is a text and not blank, or ""."""
    found = (value for name in names if isinstance(value := record.get(name), str))
    return next((value for value in found if value.strip()), "")


def _encodable(text: str) -> str:
    """A truncated JSON escape leaves a lone surrogate, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def is_tsv(path: str) -> bool:
    """Whether a file holds sentence pairs (TSV)."""
    return path.removesuffix(".gz").removesuffix(".zst").endswith(".tsv")


def pair_of(record: Mapping[str, Any], path: str) -> RawDocument:
    """Makes a sentence pair of a TSV line; its languages are in the file's name ("news.en-kk.tsv").

    Raises:
        ValueError: the line does not have two columns, or the name has no languages.
    """
    codes = pair_codes(path)
    if record["text"].count("\t") != 1:
        raise ValueError("not two columns")
    text = f"{codes}\t{record['text']}"
    key = hashlib.blake2b(text.encode("utf-8"), digest_size=12).hexdigest()
    return RawDocument(key, record["text"], codes, charset=str(record.get(CHARSET, "")))


@functools.lru_cache(maxsize=256)
def pair_codes(path: str) -> str:
    """The languages in a file's name as "en-kk": of "news.eng-kaz.tsv" or "en_US-kk_KZ.tsv" too.

    Names such as "the-news.en-kk.tsv" hold several pairs of letters: known languages are preferred,
    then codes of equal length, then the last ones.

    Raises:
        ValueError: the name has no two languages.
    """
    name = path.rpartition("/")[2]
    found = []
    for match in _PAIR.finditer(name):
        codes = language_code(match[1]), language_code(match[2])
        if all(codes) and codes[0] != codes[1]:
            known = sum(code in LANGUAGES for code in codes)
            found.append((known, len(match[1]) == len(match[2]), match.start(), "-".join(codes)))
    if not found:
        raise ValueError("the file's name does not contain two languages: name it as en-kk.tsv")
    return max(found)[-1]
