"""Reads pages of WARC files and texts of WET files (ISO 28500), also from parts of packed files.

Packed WARC files have a gzip member for each record, so that a part of the file can start at any
member. A member is found by its magic bytes and by "WARC/" at its beginning. Compressed data may
hold both, as a page that is a packed WARC file: so a part is read from LOOK_BACK bytes before its
start. The end of any longer member leads to the file's own members, which follow one another.
"""

from __future__ import annotations

import contextlib
import io
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

from marco_jax.curation import charsets
from marco_jax.curation.http_bodies import (
    FORM,
    HTML_TYPES,
    PAGE_BYTES,
    PLAIN_TYPES,
    check_page,
    header_fields,
    may_be_page,
    media_type,
    page_of,
)

_BLOCK = 1 << 20
# Small, since the rest of a block is copied at the end of each member in it.
_PACKED_BLOCK = 1 << 17
_MAGIC = b"\x1f\x8b\x08"
_START = re.compile(rb"WARC/\d\.\d\s*\n")
# A part is read from so many bytes before its start, to find where members begin.
LOOK_BACK = 32 << 20
_DICTIONARY = b"\x5d\x2a\x4d\x18"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"

# Its offset; its fields or None; its fault.
Found = tuple[int, dict[str, Any] | None, str]


def packed_records(stream: IO[bytes], start: int, stop: int) -> Iterator[Found]:
    """Yields the pages in the gzip members that begin in bytes [start, stop).

    Args:
        stream: a seekable stream of the compressed bytes.
        start: first byte.
        stop: end, or 0 for the end of the file.
    """
    source = _Source(stream, max(0, start - LOOK_BACK))
    if source.at and not source.find(stop):
        return
    while source.more() and not (stop and source.at >= stop):
        at = source.at
        try:
            member = _Member(source)
            found = enumerate(records(io.BufferedReader(member, _BLOCK)) if at >= start else ())
            for number, (_, fields, fault) in found:
                if fields is not None or fault:
                    yield at + number, fields, fault
            member.drain()
        except (zlib.error, EOFError):
            source.seek(at)
            # Zero bytes fill up files on tapes and block devices.
            if source.only_zeros():
                return
            if at >= start:
                yield at, None, "damaged gzip member"
            source.seek(at + 1)
            if not source.find(stop):
                return


def zstandard_records(stream: IO[bytes]) -> Iterator[Found]:
    """Yields the pages of a .warc.zst file, whose first frame may be a dictionary."""
    import zstandard

    head = stream.read(8)
    unpacker = zstandard.ZstdDecompressor()
    if head[:4] == _DICTIONARY:
        data = stream.read(int.from_bytes(head[4:], "little"))
        if data.startswith(_ZSTANDARD):
            data = unpacker.decompress(data, max_output_size=PAGE_BYTES)
        unpacker = zstandard.ZstdDecompressor(zstandard.ZstdCompressionDict(data))
    else:
        stream.seek(0)
    reader = unpacker.stream_reader(stream, read_across_frames=True)
    yield from (found for found in records(io.BufferedReader(reader, _BLOCK)) if any(found[1:]))


def records(stream: IO[bytes]) -> Iterator[Found]:
    """Yields all records of an unpacked stream; (offset, None, "") for those without a page."""
    reader = _Counted(stream)
    while line := reader.line():
        at = reader.at - len(line)
        if not _START.match(line):
            continue
        lines = []
        while (line := reader.line()).strip():
            lines.append(line)
        fields = header_fields(lines)
        size = fields.get("content-length", "")
        if not re.fullmatch("[0-9]{1,15}", size):
            yield at, None, "WARC record without a sensible length"
            continue
        kind = fields.get("warc-type", "").lower()
        if kind not in ("conversion", "response", "resource"):
            reader.skip(int(size))
            yield at, None, ""
        elif int(size) > PAGE_BYTES:
            reader.skip(int(size))
            yield at, None, "page too large"
        else:
            try:
                yield at, _page(kind, fields, reader.read(int(size))), ""
            except ValueError as error:
                yield at, None, str(error)


def _page(kind: str, fields: dict[str, str], body: bytes) -> dict[str, Any]:
    """The record of a page: "html" or "text", with its form and charset."""
    media, label = media_type(fields.get("content-type", ""))
    if kind == "response":
        if not media.startswith("application/http") and not body.startswith(b"HTTP/"):
            raise ValueError("not an HTTP response")
        body, media, label = page_of(body)
    elif kind == "resource":
        if not may_be_page(media):
            raise ValueError("not a text page")
        check_page(media, body)
    if kind == "conversion":
        media = "text/plain"
    text, charset = charsets.decode_text(body, label, charsets.declared_charset(body))
    record: dict[str, Any] = {
        "id": fields.get("warc-record-id", "").strip("<>") or None,
        "url": fields.get("warc-target-uri", "").strip("<>"),
    }
    if charset != charsets.UTF_8:
        record[charsets.CHARSET] = charset
    if media in PLAIN_TYPES:
        return {**record, "text": text, FORM: "plain"}
    return {**record, "html": text, FORM: "html" if media in HTML_TYPES else ""}


class _Counted:
    """A stream with the offset of its next byte."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.at = stream, 0

    def line(self) -> bytes:
        line = self._stream.readline(_BLOCK)
        self.at += len(line)
        return line

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.at += len(data)
        return data

    def skip(self, size: int) -> None:
        while size > 0 and (data := self.read(min(size, _BLOCK))):
            size -= len(data)


class _Source:
    """Compressed bytes with the offset of the next one."""

    def __init__(self, stream: IO[bytes], at: int) -> None:
        self._stream = stream
        self.seek(at)

    def seek(self, at: int) -> None:
        self._stream.seek(at)
        self.at, self._held = at, b""

    def more(self) -> bool:
        """Whether a byte follows."""
        return bool(self._held) or self._fill()

    def _fill(self) -> bool:
        block = self._stream.read(_PACKED_BLOCK)
        self._held += block
        return bool(block)

    def take(self) -> bytes:
        """The bytes that are held, or the next block."""
        self.more()
        data, self._held = self._held, b""
        self.at += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        self._held = data + self._held
        self.at -= len(data)

    def only_zeros(self) -> bool:
        """Whether zero bytes are all that follows; takes them."""
        while data := self.take():
            if data.strip(b"\0"):
                return False
        return True

    def find(self, stop: int) -> bool:
        """Moves to the next member that begins a WARC record, before `stop`."""
        while True:
            found = self._held.find(_MAGIC)
            skipped = found if found >= 0 else max(0, len(self._held) - len(_MAGIC) + 1)
            self._held = self._held[skipped:]
            self.at += skipped
            if stop and self.at >= stop:
                return False
            if found < 0:
                if not self._fill():
                    return False
                continue
            at = self.at
            begins = self._begins_record()
            self.seek(at if begins else at + 1)
            if begins:
                return True

    def _begins_record(self) -> bool:
        with contextlib.suppress(zlib.error):
            unpacker, out = zlib.decompressobj(31), b""
            while len(out) < 16 and not unpacker.eof and self.more():
                data = unpacker.unconsumed_tail or self.take()
                out += unpacker.decompress(data, 16)
            return bool(_START.match(out))
        return False


class _Member(io.RawIOBase):
    """The unpacked bytes of the gzip member at which a source stands."""

    def __init__(self, source: _Source) -> None:
        self._source, self._unpacker = source, zlib.decompressobj(31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacker.eof:
            data = self._source.take()
            if not data:
                raise EOFError
            out = self._unpacker.decompress(data, len(buffer))
            # Only one of them holds bytes: the tail before the member's end, the unused after it.
            self._source.give_back(self._unpacker.unconsumed_tail or self._unpacker.unused_data)
            if out:
                buffer[: len(out)] = out
                return len(out)
        return 0

    def drain(self) -> None:
        """Reads on to the end of the member."""
        block = bytearray(_BLOCK)
        while self.readinto(block):
            pass
