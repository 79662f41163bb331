"""WARC files as crawlers and archives write them, in parts of any size."""

import gzip
import random
import zlib

import pytest

from marco_jax.curation import inputs, warc
from marco_jax.curation.http_bodies import PAGE_BYTES
from marco_jax.curation.inputs import Part, parts_of, read
from tests.curation.web_texts import SENTENCES

PAGE = "<html><body><p>Grüße vom Fluss</p></body></html>"


def record(body: bytes, kind="response", end=b"\r\n", media="application/http", url="a") -> bytes:
    lines = [b"WARC/1.0", f"WARC-Type: {kind}".encode(), f"WARC-Target-URI: http://{url}".encode()]
    lines += [f"Content-Type: {media}".encode(), b"content-LENGTH: %d" % len(body), b""]
    return end.join(lines) + end + body + end * 2


def http(body: bytes, *fields: str, status="200 OK", media="text/html", end="\r\n") -> bytes:
    head = [f"HTTP/1.1 {status}", *([f"Content-Type: {media}"] if media else []), *fields, "", ""]
    return end.join(head).encode() + body


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def read_all(tmp_path, data: bytes, name="a.warc"):
    (tmp_path / name).write_bytes(data)
    return [row for part in parts_of([str(tmp_path / name)]) for row in read(part)]


def page(tmp_path, message: bytes, **more):
    (row,) = read_all(tmp_path, record(message, **more))
    return row.fault or row.fields.get("html") or row.fields["text"]


def test_bodies_are_decoded_as_their_fields_say(tmp_path):
    brotli, zstandard = pytest.importorskip("brotli"), pytest.importorskip("zstandard")
    body = PAGE.encode()
    raw = zlib.compressobj(wbits=-15)
    forms = {
        "gzip": gzip.compress(body),
        "x-gzip": gzip.compress(body[:9]) + gzip.compress(body[9:]),
        "deflate": zlib.compress(body),
        "Deflate": raw.compress(body) + raw.flush(),
        "br": brotli.compress(body),
        "zstd": zstandard.ZstdCompressor().compress(body),
        "identity": body,
        "deflate, gzip": gzip.compress(zlib.compress(body)),
    }
    for name, data in forms.items():
        assert page(tmp_path, http(data, f"Content-Encoding: {name}")) == PAGE, name
        # Crawlers decode a body, and may leave its fields.
        assert page(tmp_path, http(body, f"Content-Encoding: {name}")) == PAGE, name
        packed = http(chunked(data), f"content-encoding: {name}", "Transfer-Encoding: Chunked")
        assert page(tmp_path, packed) == PAGE, name
    assert page(tmp_path, http(body, "Transfer-Encoding: chunked")) == PAGE


def test_a_cut_body_keeps_what_decodes(tmp_path):
    text = f"<p>{'Ein Satz über den Fluss. ' * 2000}{random.Random(1).randbytes(4000).hex()}"
    body = gzip.compress(text.encode())
    found = page(tmp_path, http(body[:-1500], "Content-Encoding: gzip"))
    assert len(found) > 50_000 and text.startswith(found)
    found = page(tmp_path, http(chunked(text.encode())[:9000], "Transfer-Encoding: chunked"))
    assert len(found) > 3000 and text.startswith(found)


def test_a_body_that_expands_without_bound_is_a_fault(tmp_path):
    body = gzip.compress(b"<p>" + b" " * (PAGE_BYTES * 2))
    assert page(tmp_path, http(body, "Content-Encoding: gzip")) == "page too large"


@pytest.mark.parametrize("status", ["404 Not Found", "301 Moved", "500", "204 No Content"])
def test_an_error_page_is_not_a_document(tmp_path, status):
    assert page(tmp_path, http(PAGE.encode(), status=status)) == "HTTP error"
    assert page(tmp_path, http(PAGE.encode(), status="206 Partial Content")) == PAGE


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("image/png", b"\x89PNG"), ("application/pdf", b"%PDF-1.4"), ("text/css", b"p {}"),
        ("application/javascript", b"let a"), ("application/json", b"{}"), ("", b"%PDF-1.4"),
        ("text/html", b"\x89PNG\r\n"), ("text/xml", b"<?xml version='1.0'?><rss></rss>"),
    ],
)  # fmt: skip
def test_other_content_is_not_a_document(tmp_path, media, body):
    assert page(tmp_path, http(body, media=media)) == "not a text page"
    assert page(tmp_path, body, kind="resource", media=media) == "not a text page"


def test_kinds_of_records(tmp_path):
    rows = read_all(
        tmp_path,
        record(b"software: x", "warcinfo", media="application/warc-fields")
        + b"".join(record(http(b""), kind) for kind in ("request", "metadata", "revisit"))
        + record("Ein Grüße".encode(), "conversion", media="text/plain")
        + record(PAGE.encode(), "resource", media="text/html; charset=utf-8")
        + record(http(b"<p>is plain text</p>", media="text/plain")),
    )
    assert [row.fault for row in rows] == ["", "", ""]
    assert [row.fields.get("text") for row in rows] == ["Ein Grüße", None, "<p>is plain text</p>"]
    assert rows[1].fields["html"] == PAGE


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_heads_with_other_ends_of_lines_and_folded_fields(tmp_path, end):
    message = http(
        gzip.compress(PAGE.encode()), f"CONTENT-encoding:{end}  gzip", "no colon", end=end
    )
    assert page(tmp_path, message, end=end.encode()) == PAGE


@pytest.mark.parametrize("codec", ["cp1251", "koi8_r", "utf_16"])
def test_the_charset_is_that_of_field_page_or_content(tmp_path, codec):
    text = f"<p>{SENTENCES['ru']}</p>"
    label = codec.replace("_", "-")
    assert page(tmp_path, http(text.encode(codec), media=f'text/html;charset="{label}"')) == text
    assert page(tmp_path, http(text.encode(codec))) == text
    declared = f"<meta charset={label}>{text}"
    assert page(tmp_path, http(declared.encode(codec), media="text/html; charset=utf-8")) == (
        declared
    )


def numbered(count: int) -> list[bytes]:
    draw = random.Random(0)
    magic = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"
    bodies = [draw.randbytes(draw.randrange(1, 900)).hex().encode() for _ in range(count)]
    for at in range(0, count, 3):
        # A page that is a packed WARC file, in a member that stores it as it is.
        inner = gzip.compress(record(http(b"<p>inner</p>"), url="inner"))
        bodies[at] = b"<p>" + magic * 5 + inner * 2 + magic
    pages = [record(http(body), url=str(n)) for n, body in enumerate(bodies)]
    return [gzip.compress(page, 0 if n % 3 == 0 else 9) for n, page in enumerate(pages)]


def test_each_record_is_in_one_part_whatever_their_size(tmp_path, monkeypatch):
    members = numbered(40)
    data = b"".join(members)
    whole = read_all(tmp_path, data, "a.warc.gz")
    assert [row.fields["url"] for row in whole] == [f"http://{n}" for n in range(40)]
    starts = [sum(map(len, members[:n])) for n in range(40)]
    assert [row.position for row in whole] == starts
    longest = max(map(len, members))
    for size, back in ((100, longest), (997, 2 * longest), (4096, 1 << 20), (len(data) - 1, 0)):
        monkeypatch.setattr(inputs, "PART_BYTES", size)
        monkeypatch.setattr(warc, "LOOK_BACK", back)
        assert read_all(tmp_path, data, "a.warc.gz") == whole, size


def test_a_damaged_member_is_a_fault_and_the_next_is_read(tmp_path, monkeypatch):
    members = [gzip.compress(record(http(PAGE.encode()), url=str(n))) for n in range(6)]
    members[2] = members[2][:60] + b"\0" * 9 + members[2][69:]
    data = b"".join(members) + b"\0" * 700
    for size in (50, 10_000):
        monkeypatch.setattr(inputs, "PART_BYTES", size)
        rows = read_all(tmp_path, data, "a.warc.gz")
        urls = [row.fields["url"][7:] for row in rows if row.fields]
        assert urls == ["0", "1", "3", "4", "5"], size
        assert [row.fault for row in rows if row.fault] == ["damaged gzip member"], size
    # The end is missing.
    rows = read_all(tmp_path, data[: -700 - 20], "a.warc.gz")
    assert len(rows) >= 5 and rows[-1].fault == "damaged gzip member"


def test_files_that_are_packed_as_a_whole(tmp_path):
    import zstandard

    pages = b"".join(record(http(PAGE.encode()), url=str(n)) for n in range(5))
    pack = zstandard.ZstdCompressor().compress
    split = pages.index(b"WARC/1.0", 9)
    for name, data in (
        ("a.warc", pages),
        ("a.warc.gz", gzip.compress(pages)),
        ("a.warc.zst", pack(pages[:split]) + pack(pages[split:])),
    ):
        rows = read_all(tmp_path, data, name)
        assert [row.fields["url"] for row in rows] == [f"http://{n}" for n in range(5)], name
        assert len({row.position for row in rows}) == 5, name
    samples = [record(http(PAGE.encode()), url=str(n)) for n in range(2000)]
    dictionary = zstandard.train_dictionary(2000, samples)
    head = warc._DICTIONARY + len(dictionary.as_bytes()).to_bytes(4, "little")
    packed = zstandard.ZstdCompressor(dict_data=dictionary).compress(pages)
    rows = read_all(tmp_path, head + dictionary.as_bytes() + packed, "b.warc.zst")
    assert [row.fields["html"] for row in rows] == [PAGE] * 5


def test_a_file_that_is_not_a_warc_file_gives_faults_alone(tmp_path):
    for name in ("a.warc.zst", "a.warc.gz", "a.warc"):
        (tmp_path / name).write_bytes(b"no archive at all" * 99)
        assert all(row.fault for row in read(Part(0, str(tmp_path / name)))), name
    long = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 99
    assert [row.fault for row in read_all(tmp_path, long)] == ["page too large"]
