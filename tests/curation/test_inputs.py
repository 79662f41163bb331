"""Files of every kind are read, whatever is wrong with some of their records."""

import gzip
import json
import pathlib

import pytest

from marco_jax.curation import inputs
from marco_jax.curation.inputs import Part, matching_files, parts_of, read

TEXTS = ["one line", "zwei Zeilen", "три строки", "四行", "x" * 3000]


def texts(path: pathlib.Path) -> list[str]:
    found = [record.fields for part in parts_of([str(path)]) for record in read(part)]
    return [fields["text"] for fields in found if fields]


def faults(path: pathlib.Path) -> list[str]:
    return [row.fault for part in parts_of([str(path)]) for row in read(part) if row.fault]


def lines(rows: list[str]) -> bytes:
    return "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows).encode()


def test_packed_and_plain_lines(tmp_path):
    import zstandard

    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(TEXTS)))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines(TEXTS)))
    (tmp_path / "d.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.txt"):
        assert texts(tmp_path / name) == TEXTS, name


def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": TEXTS, "id": list("abcde")})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert texts(tmp_path / "a.parquet") == TEXTS
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:300])
    assert faults(tmp_path / "b.parquet") == ["unreadable file: ArrowInvalid"]


def test_warc_and_wet_as_another_library_writes_them(tmp_path):
    warcio = pytest.importorskip("warcio")
    import io

    from warcio.statusandheaders import StatusAndHeaders

    page = "<html><body><p>Grüße</p></body></html>"
    for name, packed in (("a.warc.gz", True), ("a.warc", False)):
        with (tmp_path / name).open("wb") as file:
            writer = warcio.WARCWriter(file, gzip=packed)
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], "HTTP/1.1")
            for kind in ("request", "response"):
                record = writer.create_warc_record(
                    "https://site.example/a",
                    kind,
                    payload=io.BytesIO(page.encode()),
                    http_headers=headers,
                )
                writer.write_record(record)
            record = writer.create_warc_record(
                "https://site.example/b", "conversion", payload=io.BytesIO(b"Ein Text")
            )
            writer.write_record(record)
        found = [record.fields for record in read(Part(0, str(tmp_path / name)))]
        assert [record.get("html") or record.get("text") for record in found] == [page, "Ein Text"]
        assert found[0]["url"] == "https://site.example/a"


def test_parts_of_a_file_hold_each_line_once(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    rows = [f"{n}" * (1 + 37 * n % 90) for n in range(200)]
    path.write_bytes(lines(rows))
    for size in (64, 65, 1000, 4096, 100_000):
        monkeypatch.setattr(inputs, "PART_BYTES", size)
        assert texts(path) == rows, size
    assert len(parts_of([str(path)])) == 1


def test_what_cannot_be_read_is_told_and_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(lines(TEXTS[:1]) + b"{\n\xff\xfe\n[1]\n\n")
        file.write(b'{"text": "' + b"x" * (100 << 20) + b'"}\n')
        file.write(lines(TEXTS[1:2]))
    assert texts(path) == TEXTS[:2]
    assert faults(path) == ["no JSON", "not UTF-8", "no JSON object", "line too long"]
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert texts(tmp_path / "empty.jsonl") == faults(tmp_path / "empty.jsonl") == []
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines(TEXTS * 99))[:-20])
    assert len(faults(tmp_path / "cut.jsonl.gz")) == 1


def test_globs_name_each_file_once(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    pattern = str(tmp_path / "*.txt")
    assert matching_files((pattern, str(tmp_path / "a.txt"))) == [str(tmp_path / "a.txt")]
    with pytest.raises(FileNotFoundError, match="no file matches"):
        matching_files((str(tmp_path / "none*"),))


def rows(path: pathlib.Path) -> list[inputs.Record]:
    return [row for part in parts_of([str(path)]) for row in read(part)]


BAD_LINES = {
    '{"id": ' + "7" * 5000 + ', "text": "a"}': "no JSON",
    "[" * 100_000: "no JSON",
    "null": "no JSON object",
    '"text"': "no JSON object",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=BAD_LINES.values())
def test_a_bad_line_is_the_fault_of_that_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n{{"text": "two", "n": NaN}}\n')
    assert texts(path) == ["one", "two"] and faults(path) == [BAD_LINES[line]]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_marks_and_ends_of_lines(tmp_path, codec, end):
    path = tmp_path / "a.jsonl"
    mark = "\ufeff" if codec == "utf-16-le" else ""
    path.write_bytes((mark + lines(TEXTS).decode().replace("\n", end)).encode(codec))
    assert texts(path) == TEXTS and not faults(path)
    for name in ("a.txt", "a.tsv"):
        (tmp_path / name).write_bytes((mark + end.join(TEXTS) + end).encode(codec))
        assert texts(tmp_path / name) == TEXTS, name


@pytest.mark.slow
def test_positions_do_not_depend_on_parts(tmp_path, monkeypatch):
    for name, codec in (("a.jsonl", "utf-8"), ("b.jsonl", "utf-16"), ("c.txt", "cp1251")):
        data = "".join(f'{{"text": "строка {"x" * (7 * n % 50)} {n}"}}\n' for n in range(99))
        (tmp_path / name).write_bytes(data.encode(codec))
        monkeypatch.setattr(inputs, "PART_BYTES", 1 << 20)
        whole = rows(tmp_path / name)
        assert len({row.position for row in whole}) == 99
        for size in (50, 101, 999):
            monkeypatch.setattr(inputs, "PART_BYTES", size)
            assert rows(tmp_path / name) == whole, (name, size)
    first = rows(tmp_path / "a.jsonl")[1].position
    assert (tmp_path / "a.jsonl").read_bytes()[first - 1 : first + 1] == b"\n{"


@pytest.mark.parametrize("codec", ["cp1251", "koi8_r", "utf_16", "iso8859_5"])
@pytest.mark.parametrize("name", ["a.txt", "a.ru-kk.tsv.gz"])
def test_a_file_of_text_in_one_charset(tmp_path, codec, name):
    sentences = ["Старый город у реки.", "OK", "Каждое утро по мосту идёт учительница.", "Зима"]
    data = "\r\n".join(sentences).encode(codec)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = rows(tmp_path / name)
    assert [row.fields["text"] for row in found] == sentences
    assert len({row.fields["_charset"] for row in found} - {"utf-8"}) == 1


def test_one_json_value_in_a_file_is_a_clear_fault(tmp_path):
    for text in ('[{"text": "a"}]', '[\n{"text": "a"},\n{"text": "b"}\n]', '{\n"text": "a"\n}'):
        (tmp_path / "a.json").write_text(text)
        assert faults(tmp_path / "a.json")[0] == "one JSON value, not a line per record"
        assert not texts(tmp_path / "a.json")


def test_a_bad_row_of_parquet_is_the_fault_of_that_row(tmp_path):
    import pyarrow
    import pyarrow.parquet

    broken = pyarrow.array([b"one", b"\xff\xfe", b"two"]).view(pyarrow.utf8())
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["one", "two"]
    assert [row.position for row in rows(tmp_path / "a.parquet") if row.fault] == [1]
