"""Extracts the main text of HTML pages, and normalises texts."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import re
import unicodedata
from typing import Any

from marco_jax.curation.documents import RawDocument

# Extracted texts with fewer characters may lack the main content: try a slower extractor.
SHORT_EXTRACT = 500
# A fragment is navigation if links hold this share of its text.
LINKED = 0.5
# Characters of a text in which its markup is looked for.
_LOOKED_AT = 1 << 16

# What stands before the first element: byte order mark, declarations and comments.
_PROLOGUE = re.compile(r"(?:\s|\ufeff|<\?xml[^>]*>|<!--.*?-->|<!doctype[^>]*>)*", re.I | re.S)
_PAGE = re.compile(r"(?:\s|\ufeff|<\?xml[^>]*>|<!--.*?-->)*<(?:!doctype\s+html|html|head|body)\b",
                   re.I | re.S)  # fmt: skip
_BLOCK = (
    "p|div|ul|ol|li|dl|table|tr|td|th|h[1-6]|section|article|main|nav|header|footer|blockquote"
    "|pre|form|center|font|aside|span|a|body"
)
_OPENS = re.compile(rf"<(?:{_BLOCK}|b|i|em|strong|img|br|hr|title|meta|link|script|style)\b", re.I)
_CLOSED = re.compile(rf"</(?:{_BLOCK})\s*>", re.I)
_TAG = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>", re.I)
# Markdown's code, in which markup is the subject.
_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|^(?: {4}|\t).*$", re.S | re.M)
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>", re.I)


def is_html(text: str, form: str = "") -> bool:
    """Whether a text is an HTML page or a fragment of one, not a text that mentions markup.

    Args:
        text: a page or text.
        form: "html" or "plain" if the file tells, else "". Plain text stays text; a page without
            any element is text, whatever its type.
    """
    if form == "plain":
        return False
    text = text[:_LOOKED_AT]
    if form == "html":
        return bool(_TAG.search(text))
    if _PAGE.match(text):
        return True
    body = text[_PROLOGUE.match(text).end() :]
    if not _OPENS.match(body):
        # A fragment may begin with words: markup must be frequent then, and end the text.
        body = re.sub(_CODE, "", body).rstrip()
        closed = len(_CLOSED.findall(body))
        return body.endswith(">") and closed >= 3 and closed * 400 >= len(body)
    tags = len(_TAG.findall(body))
    return bool(_CLOSED.search(body)) and (body.rstrip().endswith(">") or tags >= 6)


def extracted(document: RawDocument) -> RawDocument:
    """Replaces an HTML page by its main text, or rejects it; other documents stay as they are."""
    if not is_html(document.text, document.form):
        return dataclasses.replace(document, form="")
    page = _DECLARATION.sub("", document.text.lstrip("\ufeff \r\n\t"))
    document = dataclasses.replace(document, form="")
    fragment = not re.search(r"<(?:html|body)\b", page[:_LOOKED_AT], re.I)
    if fragment:
        page = f"<html><body>{page}</body></html>"
    try:
        text = _main_text(page) or (_fragment_text(page) if fragment else "")
    except (ValueError, RecursionError):
        return document.rejected("extraction", "unreadable page")
    if not text:
        return document.rejected("extraction", "no main content")
    # Drop the title if the following text starts with it.
    first, _, rest = text.partition("\n")
    return dataclasses.replace(document, text=rest if rest.startswith(first) else text)


def _main_text(page: str) -> str:
    import trafilatura

    # fast=True skips trafilatura's fallback extractors, which are tried only for short results.
    extract = functools.partial(
        trafilatura.extract, page, include_comments=False, favor_precision=True
    )
    text = extract(fast=True) or ""
    if len(text) < SHORT_EXTRACT:
        text = extract() or text
        # Of a page of links alone the extractors return the links.
        text = "" if _without_spaces(text) in _linked(trafilatura.load_html(page)) else text
    return text


def _linked(tree: Any) -> str:
    """The text of all links, without spaces."""
    links = () if tree is None else tree.iter("a")
    return "".join(_without_spaces(link.text_content()) for link in links)


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _fragment_text(page: str) -> str:
    """All text of a fragment, of which extraction finds no main part; "" if it is mostly links."""
    import trafilatura

    tree = trafilatura.load_html(page)
    if tree is None:
        return ""
    for element in tree.xpath("//nav|//script|//style|//form|//footer|//header"):
        element.drop_tree()
    total = len(_without_spaces(tree.text_content()))
    if len(_linked(tree)) > LINKED * total:
        return ""
    return trafilatura.html2txt(tree)


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
