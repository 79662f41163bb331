"""Files with records that cannot be read, among good ones, for every form and compression."""

import dataclasses
import gzip
import json
import pathlib
import random

import pyarrow
import pyarrow.parquet
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordWriter

# What tests set text_lines.LINE_BYTES to.
LINE_LIMIT = 1 << 16
_WORDS = ["кітап\u2028", "अक्षर", "word", "\x85text", "สวัสดี", "🙂", "a\x0bb", "שלום"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A file, and what comes of reading it."""

    name: str
    path: pathlib.Path
    # Of the bad record, as messages have it behind the path; and why it is bad. Empty: none is.
    location: str
    reason: str
    # Texts of the good records.
    texts: tuple[str, ...]
    # Whether a damage may take good records that are near it.
    prefix: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns, for a TSV."""
        return ("id", "text") if ".tsv" in self.path.name else ()


def make(folder: pathlib.Path, seed: int) -> list[Case]:
    """Writes the files of all cases."""
    cases = []
    for name, write in (
        ("jsonl", _bad_objects),
        ("files", _odd_files),
        ("lines", _bad_lines),
        ("compressed", _damaged_streams),
        ("parquet", _bad_parquet),
        ("tfrecord", _bad_tfrecords),
        ("array_record", _bad_array_records),
    ):
        (folder / name).mkdir(parents=True)
        cases += write(folder / name, random.Random(f"{seed} {name}"))
    return cases


def _texts(rng: random.Random, least: int = 2, most: int = 6) -> list[str]:
    return [
        " ".join([f"{rng.getrandbits(64):x}", *rng.choices(_WORDS, k=rng.randint(0, 5)), "."])
        for _ in range(rng.randint(least, most))
    ]


def _object(text: str, rng: random.Random) -> bytes:
    record = {"id": rng.getrandbits(32), "text": text}
    return json.dumps(record, ensure_ascii=rng.random() < 0.5).encode()


_OBJECTS = {
    "byte": (b'{"text": "a\xffb"}', "not UTF-8"),
    "half_character": (b'{"text": "a' + "ж".encode()[:1] + b'"}', "not UTF-8"),
    "latin": ('{"text": "caf\xe9"}'.encode("latin-1"), "not UTF-8"),
    "encoded_surrogate": (b'{"text": "\xed\xa0\x80"}', "not UTF-8"),
    "high_surrogate": (b'{"text": "a \\ud83d b"}', "lone surrogate"),
    "low_surrogate": (b'{"text": "\\uDE42"}', "lone surrogate"),
    "turned_surrogates": (b'{"text": "\\ude42\\ud83d"}', "lone surrogate"),
    "surrogate_in_id": (b'{"id": "\\udfff", "text": "a"}', "lone surrogate"),
    "deep_lists": (b'{"text": "a", "b": ' + b"[" * 9000 + b"]" * 9000 + b"}", "nested too deep"),
    "deep_objects": (b'{"a": ' * 9000 + b"1" + b"}" * 9000, "nested too deep"),
    "huge_integer": (b'{"text": "a", "n": ' + b"7" * 5000 + b"}", "number too large"),
    "escaped_nul": (b'{"text": "a\\u0000b"}', "NUL character"),
    "raw_nul": (b'{"text": "a\0b"}', "not valid JSON"),
    "list": (b'["text"]', "not a JSON object"),
    "number": (b"12", "not a JSON object"),
    "string": (b'"text"', "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "garbage_behind": (b'{"text": "a"} b', "not valid JSON"),
    "two_objects": (b'{"text": "a"}{"text": "b"}', "not valid JSON"),
    "cut_off": (b'{"text": "a', "not valid JSON"),
    "mark_inside": (b'\xef\xbb\xbf{"text": "a"}', "not valid JSON"),
    "empty_text": (b'{"text": " "}', "empty text"),
    "no_text": (b'{"body": "a"}', "not a text"),
    "null_text": (b'{"text": null}', "not a text"),
    "list_as_text": (b'{"text": ["a"]}', "not a text"),
    "long_line": (b'{"text": "' + b"a" * LINE_LIMIT + b'"}', "line too long"),
    "very_long_line": (b"a" * (3 * LINE_LIMIT + 7), "line too long"),
    # Odd, and good.
    "nan": (b'{"text": "good", "n": [NaN, -Infinity, 1e999]}', ""),
    "duplicate_keys": (b'{"text": "bad", "text": "good"}', ""),
    "surrogate_pair": (b'{"text": "good", "b": "\\ud83d\\ude42"}', ""),
    "carriage_return": (b'{"text": "good"}\r', ""),
    "blank": (b" \t\r", ""),
}


def _bad_objects(folder: pathlib.Path, rng: random.Random) -> list[Case]:
    cases = []
    for name, (line, reason) in _OBJECTS.items():
        texts = _texts(rng)
        lines = [_object(text, rng) for text in texts]
        at = rng.randrange(1, len(lines) + 1)
        lines.insert(at, line)
        if b'"good"' in line:
            texts.insert(at, "good")
        path = folder / f"{name}.jsonl"
        path.write_bytes(b"\n".join(lines) + rng.choice((b"", b"\n")))
        cases.append(Case(name, path, f":{at + 1}" if reason else "", reason, tuple(texts)))
    return cases


def _odd_files(folder: pathlib.Path, rng: random.Random) -> list[Case]:
    cases = []
    texts = _texts(rng)
    data = b"".join(_object(text, rng) + b"\n" for text in texts)
    for name, content, kept in (
        ("empty", b"", []),
        ("newlines", b"\n\r\n\n", []),
        ("mark", b"\xef\xbb\xbf" + data, texts),
        ("mark_alone", b"\xef\xbb\xbf", []),
        ("windows", data.replace(b"\n", b"\r\n"), texts),
        ("without_newline", data[:-1], texts),
    ):
        path = folder / f"{name}.jsonl"
        path.write_bytes(content)
        cases.append(Case(name, path, "", "", tuple(kept)))
    for encoding in ("utf-16", "utf-16-be", "utf-32"):
        path = folder / f"{encoding}.jsonl"
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        path.write_bytes((mark + data.decode()).encode(encoding))
        cases.append(Case(encoding, path, ":1", "not UTF-8", ()))
    return cases


def _bad_lines(folder: pathlib.Path, rng: random.Random) -> list[Case]:
    cases = []
    for name, line, reason in (
        ("byte.txt", b"a\x80", "not UTF-8"),
        ("nul.txt", b"a\0b", "NUL character"),
        ("long.txt", b"a" * (LINE_LIMIT + 1), "line too long"),
        ("one_column.tsv", b"a", "wrong number of columns"),
        ("three_columns.tsv", b"a\tb\tc", "wrong number of columns"),
        ("byte.tsv", b"a\t\xc3\x28", "not UTF-8"),
        ("empty_column.tsv", b"a\t", "empty text"),
        ("nul.tsv", b"a\tb\0", "NUL character"),
    ):
        texts = _texts(rng)
        lines = [text.encode() for text in texts]
        if name.endswith(".tsv"):
            lines = [b"%d\t%s" % (n, text) for n, text in enumerate(lines)]
        at = rng.randrange(len(lines) + 1)
        lines.insert(at, line)
        path = folder / name
        path.write_bytes(b"\n".join(lines) + b"\n")
        cases.append(Case(name, path, f":{at + 1}", reason, tuple(texts)))
    return cases


def _damaged_streams(folder: pathlib.Path, rng: random.Random) -> list[Case]:
    cases = []
    for suffix in ("gz", "zst"):
        texts = _texts(rng, 6000, 6000)
        lines = [_object(text, rng) for text in texts]
        data = _compressed(b"\n".join(lines) + b"\n", suffix)
        half = data[: len(data) * rng.randint(60, 90) // 100]
        for name, content, kept, prefix in (
            ("half", half, texts, True),
            ("last_bytes", data[: -rng.randint(1, 3)], texts, True),
            ("garbage_behind", data + b"garbage", texts, False),
            ("half_of_two", data + half, [*texts, *texts], True),
        ):
            path = folder / f"{name}.jsonl.{suffix}"
            path.write_bytes(content)
            damage = ", byte "
            cases.append(Case(name, path, damage, "file ends early", tuple(kept), prefix))
        path = folder / f"plain.jsonl.{suffix}"
        path.write_bytes(lines[0])
        cases.append(Case("plain", path, ", byte 0", "file ends early", ()))
        path = folder / f"bad_line.jsonl.{suffix}"
        path.write_bytes(_compressed(b"\n".join([*lines[:3], b"{", *lines[3:9]]), suffix))
        cases.append(Case("bad_line", path, ":4", "not valid JSON", tuple(texts[:9])))
        path = folder / f"empty.jsonl.{suffix}"
        path.write_bytes(b"")
        cases.append(Case("empty", path, "", "", ()))
    return cases


def _compressed(data: bytes, suffix: str) -> bytes:
    if suffix == "gz":
        return gzip.compress(data)
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def _bad_parquet(folder: pathlib.Path, rng: random.Random) -> list[Case]:
    texts = _texts(rng, 3000, 3000)
    path = folder / "good.parquet"
    table = pyarrow.table({"text": texts})
    options = {"row_group_size": 1000, "use_dictionary": False, "write_page_checksum": True}
    pyarrow.parquet.write_table(table, path, **options)
    good = path.read_bytes()
    second = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    broken = bytearray(good)
    broken[second.data_page_offset + rng.randrange(100, 2000)] ^= 0x55
    cases = [Case("good", path, "", "", tuple(texts))]
    for name, content, row, kept in (
        ("group", bytes(broken), 1001, texts[:1000]),
        ("half", good[: len(good) // 2], 1, ()),
        ("plain", b"text", 1, ()),
        ("empty", b"", 1, ()),
    ):
        path = folder / f"{name}.parquet"
        path.write_bytes(content)
        cases.append(Case(name, path, f", row {row}", "file ends early", tuple(kept)))
    at = rng.randrange(2000)
    for name, bad, reason in (
        ("byte", b"a\xff", "not UTF-8"),
        ("null", None, "not a text"),
        ("nul", b"a\0", "NUL character"),
    ):
        values = [text.encode() for text in texts[:2000]]
        values.insert(at, bad)
        column = pyarrow.array(values, pyarrow.binary())
        column = pyarrow.Array.from_buffers(pyarrow.string(), len(column), column.buffers())
        path = folder / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
        cases.append(Case(name, path, f", row {at + 1}", reason, tuple(texts[:2000])))
    return cases


def _example(text: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
    features = tf.train.Features(feature={"text": feature})
    return tf.train.Example(features=features).SerializeToString()


_EXAMPLES = {
    "garbage": (b"garbage", "not an Example"),
    "byte": (_example(b"a\xff"), "not UTF-8"),
    "nul": (_example(b"a\0"), "NUL character"),
    "json_byte": (b'{"text": "\xff"}', "not UTF-8"),
    "json_cut_off": (b'{"text": "', "not valid JSON"),
    "json_surrogate": (b'{"text": "\\ud800"}', "lone surrogate"),
}


def _bad_tfrecords(folder: pathlib.Path, rng: random.Random) -> list[Case]:
    def write(path: pathlib.Path, records: list[bytes]) -> bytes:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
        return path.read_bytes()

    cases = _bad_examples(folder, rng, "tfrecord", write)
    texts = _texts(rng, 20, 20)
    path = folder / "good.tfrecord"
    sizes = [len(_example(text.encode())) + 16 for text in texts]
    good = write(path, [_example(text.encode()) for text in texts])
    at = rng.randrange(20)
    begins = sum(sizes[:at])
    flipped = bytearray(good)
    flipped[begins + 12 + rng.randrange(4)] ^= 0x55
    for name, content in (
        ("cut_in_record", good[: begins + rng.randrange(13, sizes[at])]),
        ("cut_in_length", good[: begins + rng.randrange(1, 12)]),
        ("flipped", bytes(flipped)),
    ):
        path = folder / f"{name}.tfrecord"
        path.write_bytes(content)
        location = f", record {at + 1}"
        cases.append(Case(name, path, location, "file ends early", tuple(texts[:at])))
    path = folder / "half.tfrecord.gz"
    packed = gzip.compress(good)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    cases.append(Case("half", path, ", record ", "file ends early", tuple(texts), prefix=True))
    return cases


def _bad_array_records(folder: pathlib.Path, rng: random.Random) -> list[Case]:
    def write(path: pathlib.Path, records: list[bytes]) -> bytes:
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        return path.read_bytes()

    cases = _bad_examples(folder, rng, "array_record", write)
    texts = _texts(rng, 3000, 3000)
    good = write(folder / "good.array_record", [_example(text.encode()) for text in texts])
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 0x55
    for name, content, kept in (
        ("half", good[: len(good) // 2], ()),
        ("plain", b"text", ()),
        ("flipped", bytes(flipped), texts),
    ):
        path = folder / f"{name}.array_record"
        path.write_bytes(content)
        prefix = name == "flipped"
        location = ", record " if prefix else ", record 1"
        cases.append(Case(name, path, location, "file ends early", tuple(kept), prefix))
    return cases


def _bad_examples(folder: pathlib.Path, rng: random.Random, form: str, write) -> list[Case]:
    cases = []
    for name, (record, reason) in _EXAMPLES.items():
        texts = _texts(rng)
        records = [_example(text.encode()) for text in texts]
        at = rng.randrange(len(records) + 1)
        records.insert(at, record)
        path = folder / f"{name}.{form}"
        write(path, records)
        cases.append(Case(name, path, f", record {at + 1}", reason, tuple(texts)))
    return cases
