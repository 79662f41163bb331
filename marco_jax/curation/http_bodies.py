"""Decodes the HTTP responses that WARC files hold (RFC 9112)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from marco_jax.extras import is_installed

# A longer page is not a document: mostly a compressed body that expands without bound.
PAGE_BYTES = 32 << 20

# Name of the field in which readers note that a page is "html" or "plain", by its media type.
FORM = "_form"
HTML_TYPES = ("text/html", "application/xhtml+xml")
PLAIN_TYPES = ("text/plain", "text/markdown", "text/x-markdown")
# Types of HTML pages and of data; the content decides.
_XML_TYPES = ("text/xml", "application/xml")
# First bytes of files that are not text, for records without a type.
_BINARY = (b"%PDF", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\x03\x04", b"\x1f\x8b", b"RIFF")
_CHUNK = re.compile(rb"\s*([0-9A-Fa-f]{1,8})[^\r\n]*\r?\n")


def header_fields(lines: Iterable[bytes]) -> dict[str, str]:
    """Header fields by lower-case name, with folded lines joined; of equal names the first."""
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text[:1] in (" ", "\t") and name:
            fields[name] = f"{fields[name]} {text.strip()}".strip()
            continue
        key, colon, value = text.partition(":")
        if colon and (name := key.strip().lower()):
            fields.setdefault(name, value.strip())
    return fields


def page_of(message: bytes) -> tuple[bytes, str, str]:
    """The page of an HTTP response.

    Args:
        message: status line, header fields and body. A cut body gives what decodes of it.

    Returns:
        The decoded body, its media type ("" if unknown) and the declared charset or "".

    Raises:
        ValueError: it is not a page; the message is the fault.
    """
    head, body = _split(message)
    status = re.match(rb"HTTP/\S+\s+(\d{3})", head)
    if not status:
        raise ValueError("not an HTTP response")
    if status[1] not in (b"200", b"203", b"206"):
        raise ValueError("HTTP error")
    fields = header_fields(head.splitlines()[1:])
    media, charset = media_type(fields.get("content-type", ""))
    if not may_be_page(media):
        raise ValueError("not a text page")
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _dechunked(body)
    codings = [part.strip().lower() for part in fields.get("content-encoding", "").split(",")]
    for coding in reversed(codings):
        body = _uncompressed(body, coding)
    if len(body) > PAGE_BYTES:
        raise ValueError("page too large")
    check_page(media, body)
    return body, media, charset


def media_type(value: str) -> tuple[str, str]:
    """The media type in lower case and the charset of a Content-Type."""
    found = re.search(r"charset\s*=\s*[\"']?\s*([\w.:+-]+)", value, re.I)
    return value.partition(";")[0].partition(",")[0].strip().lower(), found[1] if found else ""


def may_be_page(media: str) -> bool:
    """Whether records of a media type may be documents."""
    return media in ("", *HTML_TYPES, *PLAIN_TYPES, *_XML_TYPES)


def check_page(media: str, body: bytes) -> None:
    """Raises ValueError for a body that is not text, or XML that is not a page."""
    start = body[:2048].lower()
    if body.startswith(_BINARY) or (media in _XML_TYPES and b"<html" not in start):
        raise ValueError("not a text page")


def _split(message: bytes) -> tuple[bytes, bytes]:
    """Head and body, with any ends of lines."""
    found = re.search(rb"\r?\n\r?\n", message[: 1 << 20])
    return (message[: found.start()], message[found.end() :]) if found else (message, b"")


def _dechunked(body: bytes) -> bytes:
    """The body of chunks, or the body itself: crawlers often keep the header and not the chunks."""
    parts, at = [], 0
    while found := _CHUNK.match(body, at):
        size = int(found[1], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[found.end() : found.end() + size])
        at = found.end() + size
    # A cut body ends within a chunk.
    return b"".join(parts) if parts and at >= len(body) else body


def _uncompressed(body: bytes, coding: str) -> bytes:
    """A body without its coding, as far as it decodes; the body itself if it has no such coding."""
    if coding in ("gzip", "x-gzip"):
        if not body.startswith(b"\x1f\x8b"):
            return body
        return _inflated(body, 31) or body
    if coding == "deflate":
        # Servers send it with and without the header of zlib.
        return _inflated(body, 15) or _inflated(body, -15) or body
    if coding == "br":
        return _brotli(body)
    if coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstandard(body)
    return body


def _inflated(body: bytes, window: int) -> bytes:
    """Unpacks up to a byte more than PAGE_BYTES; "" if the body is not of this form."""
    out = bytearray()
    while body and len(out) <= PAGE_BYTES:
        unpacker = zlib.decompressobj(window)
        try:
            # Small pieces, so that what precedes damage is kept.
            for start in range(0, len(body), 1024):
                out += unpacker.decompress(body[start : start + 1024], 1 << 20)
                while unpacker.unconsumed_tail and len(out) <= PAGE_BYTES:
                    out += unpacker.decompress(unpacker.unconsumed_tail, 1 << 20)
                if unpacker.eof or len(out) > PAGE_BYTES:
                    rest = unpacker.unused_data + body[start + 1024 :]
                    break
            else:
                rest = b""
        except zlib.error:
            rest = b""
        # Further members of gzip.
        body = rest if window == 31 and rest.startswith(b"\x1f\x8b") else b""
    return bytes(out[: PAGE_BYTES + 1])


def _brotli(body: bytes) -> bytes:
    if not is_installed("brotli"):
        raise ValueError("brotli is not installed")
    import brotli

    unpacker = brotli.Decompressor()
    out = bytearray()
    try:
        for start in range(0, len(body), 1024):
            out += unpacker.process(body[start : start + 1024])
            if len(out) > PAGE_BYTES:
                break
    except brotli.error:
        # Every text is the start of some stream: a few bytes of output prove nothing.
        return bytes(out) if len(out) > len(body) else body
    return bytes(out) or body


def _zstandard(body: bytes) -> bytes:
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body)
        return reader.read(PAGE_BYTES + 1) or body
    except zstandard.ZstdError:
        return body
