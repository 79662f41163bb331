"""Records that cannot be read: one line names the first, or they are counted and left out."""

import gzip
import itertools
import tracemalloc

import pytest

from marco_jax.data import text_lines
from marco_jax.data.readers import read_records, split_spans
from marco_jax.data.record_errors import RecordErrors, check_text
from tests.data.hostile_records import LINE_LIMIT, make


@pytest.fixture(scope="module", params=range(3))
def cases(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("hostile"), request.param)


@pytest.fixture(autouse=True)
def short_lines(monkeypatch):
    monkeypatch.setattr(text_lines, "LINE_BYTES", LINE_LIMIT)


def read(case, errors, span=None):
    records = read_records(str(case.path), "", case.columns, errors, span)
    texts = (check_text(record.get("text"), place, errors, "text") for place, record in records)
    return [text for text in texts if text is not None]


def test_a_bad_record_ends_the_reading_in_a_line_that_names_it(cases):
    assert len(cases) > 60
    for case in cases:
        if not case.reason:
            assert read(case, RecordErrors()) == list(case.texts), case.name
            continue
        with pytest.raises(ValueError) as caught:
            read(case, RecordErrors())
        message = str(caught.value)
        assert type(caught.value) is ValueError, case
        assert message.startswith(f"{case.path}{case.location}"), case.name
        assert message.endswith("; set data_errors=skip to leave out such records"), case.name
        assert len(message.splitlines()) == 1 and message.isprintable(), case.name
        assert len(message) < 500, case.name


def test_bad_records_are_left_out_and_the_others_read(cases):
    for case in cases:
        errors = RecordErrors("skip")
        texts = read(case, errors)
        kept = case.texts[: len(texts)] if case.prefix else case.texts
        assert texts == list(kept), case.name
        assert errors.counts == ({case.reason: 1} if case.reason else {}), case.name


def test_little_is_lost_before_a_damage(cases):
    lost = {}
    for case in cases:
        if case.prefix:
            lost[case.path.name] = 1 - len(read(case, RecordErrors("skip"))) / len(case.texts)
    for suffix in ("gz", "zst"):
        assert lost[f"last_bytes.jsonl.{suffix}"] < 0.35
        assert lost[f"half_of_two.jsonl.{suffix}"] < 0.5
        assert lost[f"half.jsonl.{suffix}"] < 0.6
    assert lost["flipped.array_record"] < 0.9


def test_bad_records_of_many_files_are_counted_together(cases, caplog):
    errors = RecordErrors("skip")
    texts = [text for case in cases for text in read(case, errors)]
    whole = [text for case in cases if not case.prefix for text in case.texts]
    assert len(texts) > len(whole)
    assert sum(errors.counts.values()) == sum(bool(case.reason) for case in cases)
    assert sum("not UTF-8" in line and "; left out" in line for line in caplog.messages) <= 6
    assert "more records are left out for the same reason: not UTF-8" in caplog.messages
    before = dict(errors.counts)
    errors.merge(before | {"another": 2})
    assert errors.counts == {key: 2 * count for key, count in before.items()} | {"another": 2}


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_spans_of_a_file_hold_its_records(cases, size):
    for case in cases:
        spans = split_spans(str(case.path), "", max(size, case.path.stat().st_size // 300))
        errors = RecordErrors("skip")
        texts = [text for span in spans for text in read(case, errors, span)]
        assert case.prefix or texts == list(case.texts), case.name
        assert errors.counts == ({case.reason: 1} if case.reason else {}), case.name


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
@pytest.mark.parametrize("form", ["text", "jsonl", "tsv"])
def test_spans_of_every_size_cover_a_file(tmp_path, form, end):
    texts = ["one", "қазақша", "🙂🙂", "", "\u2028 x", "last ж"]
    lines = {
        "text": texts,
        "jsonl": [text and f'{{"text": "{text}"}}' for text in texts],
        "tsv": [text and f"{text}\t{text}" for text in texts],
    }
    path = tmp_path / "data"
    path.write_text("\n".join(lines[form]) + end, encoding="utf-8", newline="")
    data = path.read_bytes()
    whole = [record for _, record in read_records(str(path), form)]
    assert len(whole) == 5
    for size in range(1, len(data) + 2):
        spans = split_spans(str(path), form, size)
        if size >= len(data):
            assert spans == [None]
            continue
        assert (spans[0][0], spans[-1][1]) == (0, len(data))
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
        assert max(stop - start for start, stop in spans) <= size
        found = [item for span in spans for item in read_records(str(path), form, span=span)]
        assert [record for _, record in found] == whole
        starts = [int(place.removeprefix(f"{path}, byte ")) for place, _ in found]
        assert all(at == 0 or data[at - 1 : at] == b"\n" for at in starts)


def test_a_bad_line_in_a_span_is_named_by_its_byte(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{\n{"text": "b"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, byte 14: not valid JSON"):
        list(read_records(str(path), span=(3, 20)))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.zst", "a.parquet"])
def test_other_files_are_not_split(tmp_path, name):
    path = str(tmp_path / name)
    assert split_spans(path, "", 1) == [None]
    with pytest.raises(ValueError, match="only uncompressed files of lines"):
        next(read_records(path, span=(0, 1)))


def test_lines_that_belong_to_other_files_keep_their_numbers(tmp_path):
    path = tmp_path / "kk.txt"
    path.write_bytes(b"one\n\xff\n\nfour\n")
    errors = RecordErrors("skip")
    records = read_records(str(path), "lines", errors=errors)
    assert [record["text"] for _, record in records] == ["one", "", "", "four"]
    assert errors.counts == {"not UTF-8": 1}
    assert split_spans(str(path), "lines", 1) == [None]


def test_a_line_without_end_is_not_held(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b"a" * (1 << 20))
        file.write(b'\n{"text": "b"}\n')
    errors = RecordErrors("skip")
    tracemalloc.start()
    try:
        records = list(read_records(str(path), errors=errors))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert records == [(f"{path}:2", {"text": "b"})]
    assert errors.counts == {"line too long": 1}
    assert peak < 8 << 20


def test_a_disk_that_fails_is_not_a_bad_record(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_records(str(tmp_path / "a.jsonl"), errors=RecordErrors("skip")))
    with pytest.raises(ValueError, match="data_errors is 'ignore': choose one of stop, skip"):
        RecordErrors("ignore")
