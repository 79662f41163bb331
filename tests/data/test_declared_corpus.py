"""Declared sources: every format gives the same documents, and what is held out stays out."""

import gzip
import json
import pathlib
import sys

import pyarrow
import pyarrow.parquet
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from marco_jax.data import readers
from marco_jax.data.chat import Turn
from marco_jax.data.load import load_corpus
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.templates import TEMPLATES
from marco_jax.data.texts import HELD_OUT, TRAIN, is_held_out

TEXTS = [f"{n}-құжат! {'сөз ' * (n % 7)}".strip() for n in range(200)]
RECORDS = [{"id": f"d{n}", "text": text} for n, text in enumerate(TEXTS)]


def write_jsonl(path: pathlib.Path, records=RECORDS) -> None:
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pyarrow.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)


def example(record: dict[str, str]) -> bytes:
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        for name, value in record.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_parquet(path: pathlib.Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)


def write_tfrecord(path: pathlib.Path) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(example(record))


def write_array_record(path: pathlib.Path) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in RECORDS:
        writer.write(example(record))
    writer.close()


def write_tsv(path: pathlib.Path) -> None:
    path.write_text("".join(f"{r['id']}\t{r['text']}\n" for r in RECORDS), encoding="utf-8")


def declare(folder: pathlib.Path, *entries: dict, seed: int = 0):
    path = folder / "sources.json"
    path.write_text(json.dumps({"sources": entries}), encoding="utf-8")
    return load_corpus(str(path), seed)


def everything(corpus, source: str) -> dict[str, str]:
    return {
        document.key: document.text
        for split in (TRAIN, HELD_OUT)
        for document in corpus.documents(source, split)
    }


@pytest.mark.parametrize(
    ("name", "write", "fields"),
    [
        ("a.jsonl", write_jsonl, {}),
        ("a.jsonl.gz", write_jsonl, {}),
        ("a.jsonl.zst", write_jsonl, {}),
        ("a.parquet", write_parquet, {}),
        ("a.tfrecord", write_tfrecord, {}),
        ("a.array_record", write_array_record, {}),
        ("a.tsv", write_tsv, {"columns": ["id", "text"]}),
    ],
)
def test_every_format_gives_the_same_documents(tmp_path, name, write, fields):
    write(tmp_path / name)
    entry = {"name": "kk_web", "kind": "text", "language": "kk", "files": "a.*", **fields}
    entry["held_out"] = 0.03
    corpus = declare(tmp_path, entry)
    assert everything(corpus, "kk_web") == {r["id"]: r["text"] for r in RECORDS}
    train = [document.key for document in corpus.documents("kk_web", TRAIN)]
    held_out = corpus.texts("kk", HELD_OUT)
    # A hash of the text decides: about 3 in a hundred of 200, and the same in every format.
    assert held_out == [text for text in TEXTS if is_held_out(text, 0.03)]
    assert 0 < len(held_out) < 20
    assert len(train) + len(held_out) == 200
    assert train == sorted(train, key=lambda key: int(key[1:]))


def test_plain_text_is_a_document_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join([*TEXTS, "", TEXTS[0]]) + "\n", encoding="utf-8")
    entry = {"name": "kk", "kind": "text", "language": "kk", "files": ["a.txt"], "held_out": 0.0}
    corpus = declare(tmp_path, entry)
    assert [d.text for d in corpus.documents("kk", TRAIN)] == [*TEXTS, TEXTS[0]]
    assert list(corpus.documents("kk", HELD_OUT)) == []


def test_seqio_and_tfds_sources(tmp_path):
    (tmp_path / "tasks.py").write_text(
        """
import seqio, tensorflow as tf
seqio.TaskRegistry.add(
    "declared_corpus_test",
    source=seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
            {"text": [f"text {n}!" for n in range(20)]}),
        splits=["train"]),
    preprocessors=[seqio.preprocessors.tokenize],
    output_features={"text": seqio.Feature(seqio.ByteVocabulary(), add_eos=False)},
)
"""
    )
    dataset = tf.data.Dataset.from_tensor_slices({"text": TEXTS})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="kazakh",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets={"train": dataset},
        data_dir=str(tmp_path / "tfds"),
        disable_shuffling=True,
    )
    common = {"kind": "text", "held_out": 0.0, "id": ""}
    corpus = declare(
        tmp_path,
        {"name": "a", "language": "en", "seqio": "declared_corpus_test", "module": "tasks.py"}
        | common,
        {"name": "b", "language": "kk", "tfds": "kazakh:1.0.0", "data_dir": "tfds"} | common,
    )
    assert "declared_corpus_test" not in seqio.TaskRegistry.names()
    # The task gives ids of a vocabulary of its own.
    assert [d.text for d in corpus.documents("a", TRAIN)] == [f"text {n}!" for n in range(20)]
    assert [d.text for d in corpus.documents("b", TRAIN)] == TEXTS


def test_a_source_of_several_inputs(tmp_path):
    write_jsonl(tmp_path / "books.jsonl", [{"body": "Бірінші"}, {"body": "Екінші"}])
    (tmp_path / "news.txt").write_text("жол 0\n\nжол 2\n", encoding="utf-8")
    (tmp_path / "en.txt").write_text("line 0\nline 1\nline 2\n", encoding="utf-8")
    lines = {"files": "news.txt", "format": "lines", "joined": True, "english": "en.txt"}
    inputs = [{"files": "books.jsonl", "text": "body"}, lines]
    entry = {"name": "kk", "kind": "text", "language": "kk", "held_out": 0.0}
    corpus = declare(tmp_path, entry | {"inputs": inputs})
    texts = [document.text for document in corpus.documents("kk", TRAIN)]
    assert texts == ["Бірінші", "Екінші", "жол 0\nжол 2"]
    assert corpus.shards("kk") == [corpus.shards("kk")[0]] and len(corpus.shards("kk")[0]) == 2


def test_bad_records_are_left_out_and_counted_as_they_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n{\n{"text": "c"}\n')
    path = tmp_path / "sources.json"
    path.write_text(json.dumps({"sources": [GOOD | {"held_out": 0.0}]}))
    corpus = load_corpus(str(path), data_errors="skip")
    assert corpus.errors.counts == {}
    assert [document.text for document in corpus.documents("kk", TRAIN)] == ["a", "c"]
    assert corpus.errors.counts == {"not a text": 1, "not valid JSON": 1}


PAIRS = "".join(f"item {n}\tзат {n}\n" for n in range(100))


def test_pairs_are_read_both_ways_under_all_templates(tmp_path):
    (tmp_path / "en-kk.tsv").write_text(PAIRS, encoding="utf-8")
    entry = {"name": "opus", "kind": "parallel", "languages": ["en", "kk"], "files": "en-kk.tsv"}
    corpus = declare(tmp_path, entry | {"held_out": 0.1})
    held_out = corpus.pairs("en", "kk", HELD_OUT)
    train = corpus.pairs("kk", "en", TRAIN)
    assert len(held_out) + len(train) == 100
    assert {pair.key for pair in held_out}.isdisjoint(pair.key for pair in train)
    assert (train[0].source_language, train[0].source) == (
        "kk",
        train[0].key.replace("item", "зат"),
    )
    texts = [document.text for document in corpus.documents("opus", TRAIN)]
    joined = "\n".join(texts)
    for pair in train:
        assert joined.count(pair.target) >= 2  # "item 1" stands in "item 11" too
    for pair in held_out:
        assert f"{pair.source}\n" not in joined
    openings = {template.partition("{")[0] for template in TEMPLATES}
    assert {o for o in openings if o and any(text.startswith(o) for text in texts)} >= {
        o for o in openings if o
    }
    again = declare(tmp_path, entry | {"held_out": 0.1}, seed=1)
    assert [d.text for d in again.documents("opus", TRAIN)] != texts
    assert again.source_fingerprint("opus") != corpus.source_fingerprint("opus")
    assert again.pairs("en", "kk", HELD_OUT) == held_out


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("english", {"English", "Kazakh"}),
        ("source", {"English", "Kazakh", "ағылшын тілі", "қазақ тілі"}),
    ],
)
def test_languages_are_named_as_asked(tmp_path, how, names):
    (tmp_path / "en-kk.tsv").write_text(PAIRS, encoding="utf-8")
    entry = {"name": "opus", "kind": "parallel", "languages": ["en", "kk"], "files": "en-kk.tsv"}
    corpus = declare(tmp_path, entry | {"language_names": how})
    joined = "\n".join(document.text for document in corpus.documents("opus", TRAIN))
    everything = {"English", "Kazakh", "ағылшын тілі", "қазақ тілі"}
    assert {name for name in everything if name in joined} == names


def test_aligned_texts_are_paired_any_to_any(tmp_path):
    for code in ("en", "kk", "ne", "xx"):
        (tmp_path / f"{code}.txt").write_text("".join(f"{code} {n}\n" for n in range(40)))
    entry = {"name": "news", "kind": "parallel", "aligned": "*.txt", "held_out": 0.1}
    corpus = declare(tmp_path, entry)
    directions = [(x, y) for x in ("en", "kk", "ne") for y in ("en", "kk", "ne") if x != y]
    for x, y in directions:
        pairs = corpus.pairs(x, y, TRAIN)
        assert pairs and all(p.source.split()[1] == p.target.split()[1] for p in pairs)
    held_out = {p.key for x, y in directions for p in corpus.pairs(x, y, HELD_OUT)}
    assert held_out.isdisjoint(p.key for x, y in directions for p in corpus.pairs(x, y, TRAIN))
    (tmp_path / "kk.txt").write_text("one line\n")
    with pytest.raises(ValueError, match="news: the aligned files do not have as many lines"):
        list(corpus.documents("news", TRAIN))


def test_conversations_have_their_messages(tmp_path):
    messages = [{"role": "user", "content": "Сәлем"}, {"role": "assistant", "content": "Hi!"}]
    write_jsonl(tmp_path / "chat.jsonl", [{"messages": messages}])
    corpus = declare(
        tmp_path, {"name": "chat", "kind": "chat", "files": "*.jsonl", "held_out": 0.0}
    )
    (document,) = corpus.documents("chat", TRAIN)
    assert document.text == "Сәлем\nHi!"
    assert document.turns == (Turn("user", "Сәлем"), Turn("assistant", "Hi!", trained=True))


def test_a_source_is_tokenised_again_only_when_it_changes(tmp_path, tokenizer, caplog):
    caplog.set_level("INFO", "marco_jax.data.prepare")

    def logged() -> list[str]:
        return [line for line in caplog.messages if line.startswith("tokenising")]

    for code in ("kk", "ne"):
        write_jsonl(tmp_path / f"{code}.jsonl")
    entries = [
        {"name": code, "kind": "text", "language": code, "files": f"{code}.jsonl"}
        for code in ("kk", "ne")
    ]
    for _ in range(2):
        corpus = declare(tmp_path, *entries)
        stores = prepare_stores(corpus, tokenizer, ["kk", "ne"], tmp_path / "cache")
    assert logged() == ["tokenising kk, ne"]
    texts = [document.text for document in corpus.documents("kk", TRAIN)]
    assert stores["kk"].lengths.tolist() == [len(tokenizer.encode(text)) for text in texts]
    write_jsonl(tmp_path / "ne.jsonl", RECORDS[:50])
    corpus = declare(tmp_path, *entries)
    stores = prepare_stores(corpus, tokenizer, ["kk", "ne"], tmp_path / "cache")
    assert logged() == ["tokenising kk, ne", "tokenising ne"]
    assert len(stores["ne"].lengths) <= 50


GOOD = {"name": "kk", "kind": "text", "language": "kk", "files": "a.jsonl"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (GOOD | {"kind": "web"}, r"source 1 \(kk\): kind is 'web'; choose one of text"),
        (GOOD | {"langage": "kk"}, "there is no field 'langage'; did you mean 'language'"),
        (GOOD | {"language": "xx"}, "xx"),
        ({"name": "kk", "kind": "text", "language": "kk"}, "set one of files, aligned, tfds"),
        (GOOD | {"held_out": 2}, "held_out is 2: write a share"),
        (GOOD | {"held_out": "1%"}, "held_out is '1%', which is not of type float"),
        (GOOD | {"kind": "parallel"}, 'it is parallel: set "languages" to two codes'),
        (GOOD | {"files": [1]}, "files is neither a text nor a list of texts"),
        (GOOD | {"format": "doc"}, "format is 'doc'; choose one of"),
        (GOOD | {"inputs": [{"files": "b"}]}, "it has inputs and files: put those into the inputs"),
        (
            {k: v for k, v in GOOD.items() if k != "files"} | {"inputs": []},
            "inputs is not a list of objects",
        ),
        (
            {k: v for k, v in GOOD.items() if k != "files"} | {"inputs": [{"held_out": 0.5}]},
            "there is no field 'held_out'",
        ),
        (GOOD | {"where": {"a": "b"}}, "there is no field 'where'"),
    ],
)
def test_a_bad_declaration_is_named_with_its_remedy(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message):
        declare(tmp_path, entry)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"text": "a"}\n{"text": }\n', r"a.jsonl:2: not valid JSON"),
        (b'{"text": "a"}\n[1]\n', r"a.jsonl:2: not a JSON object"),
        (b'{"text": "a"}\n{"body": "b"}\n', r'a.jsonl:2: no text under "text"'),
        (b'{"text": "a"}\n\xff\xfe\n', r"a.jsonl:2: not UTF-8"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(tmp_path, data, message):
    (tmp_path / "a.jsonl").write_bytes(data)
    corpus = declare(tmp_path, GOOD | {"held_out": 0.0})
    with pytest.raises(ValueError, match=message):
        list(corpus.documents("kk", TRAIN))


def test_reading_holds_little(tmp_path):
    """A gigabyte would not fit: lines are streamed from compressed files."""
    line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(20_000):
            file.write(line)
    records = readers.read_records(str(tmp_path / "a.jsonl.gz"))
    place, record = next(records)
    assert (place.rpartition(":")[2], len(record["text"])) == ("1", 1000)
    held = sum(sys.getsizeof(value) for value in records.gi_frame.f_locals.values())
    assert held < 1 << 16
    assert sum(1 for _ in records) == 19_999
