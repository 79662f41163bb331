"""Corpora from directories and JSONL files."""

import gzip
import json
import pathlib

import pytest

from marco_jax.data.corpus import Corpus
from marco_jax.data.load import load_corpus
from marco_jax.data.texts import HELD_OUT, KNOWLEDGE, PARALLEL, SPLITS, TRAIN


def write(path: pathlib.Path, *lines: str | dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    data = "".join(f"{row}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def all_texts(corpus: Corpus, source: str) -> str:
    return "\n".join(d.text for split in SPLITS for d in corpus.documents(source, split))


def test_a_directory_of_corpora(tmp_path):
    numbers = range(100)
    write(tmp_path / "news/mono/en.txt", *(f"English sentence {n}." for n in numbers))
    write(tmp_path / "news/mono/kk.txt", *(f"Қазақ сөйлемі {n}." for n in numbers))
    write(tmp_path / "news/mono/zh-hant.txt", *(f"中文句子{n}。" for n in numbers))
    write(tmp_path / "news/mono/xho.txt", "Isivakalisi.")
    write(tmp_path / "ui/parallel/en-ne.tsv", *(f"Item {n}\tवस्तु {n}" for n in numbers))
    write(tmp_path / "wiki/docs/de.jsonl", *({"id": f"{n}", "text": f"Text {n}"} for n in numbers))
    write(tmp_path / "wiki/qa/kk.jsonl", *({"q": f"Неше {n}?", "a": f"{n}"} for n in numbers))
    write(tmp_path / "dirty_web_constructed/mono/tr.txt", "Kirli metin.")
    corpus = load_corpus(str(tmp_path))
    assert corpus.sources() == ["en", "zh", "de", "kk", PARALLEL, KNOWLEDGE]
    assert len(corpus.pairs("ne", "en", TRAIN)) > 80
    assert "Неше 7?\n7" in all_texts(corpus, KNOWLEDGE)
    # Aligned files: what is held out in English is held out in Kazakh and Chinese.
    held_out = [line for text in corpus.texts("en", HELD_OUT) for line in text.splitlines()]
    assert 0 < len(held_out) < 30
    lines = [f"Қазақ сөйлемі {line.split()[-1]}" for line in held_out]
    assert "\n".join(lines) == "\n".join(corpus.texts("kk", HELD_OUT))


def test_jsonl_files_of_both_forms(tmp_path):
    write(
        tmp_path / "a.jsonl.gz",
        *({"text": f"мәтін {n}", "language": "kk"} for n in range(50)),
        {"text": "made up", "language": "en", "source": "synthetic", "id": "s1"},
    )
    pair = {"source_language": "en", "target_language": "kk"}
    write(
        tmp_path / "b.jsonl",
        *(pair | {"source": f"two {n}", "target": f"екі {n}"} for n in range(50)),
    )
    corpus = load_corpus(f"{tmp_path}/a.*, {tmp_path}/b.jsonl")
    assert "мәтін 7" in all_texts(corpus, "kk")
    assert "made up" in all_texts(corpus, "synthetic")
    assert corpus.sources() == ["kk", PARALLEL, "synthetic"]
    assert len(corpus.pairs("en", "kk", TRAIN)) > 35


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "a.jsonl:2: not valid JSON"),
        ("[1]", "a.jsonl:2: not a JSON object"),
        ('{"language": "kk"}', 'a.jsonl:2: no text under "text"'),
        ('{"text": "x"}', 'a.jsonl:2: no text under "language"'),
        ('{"text": "x", "language": "kz"}', "a.jsonl:2: language 'kz' is unknown"),
        ('{"source": "x", "target": "y"}', 'a.jsonl:2: no text under "source_language"'),
        ('{"text": "x", "language": "kk", "source": "web"}', "a.jsonl:2: source 'web' is not"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    write(tmp_path / "a.jsonl", '{"text": "x", "language": "kk"}', line)
    with pytest.raises(ValueError) as error:
        load_corpus(str(tmp_path / "a.jsonl"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x", "language": "kk"}\n\xff\xfe\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: not UTF-8"):
        load_corpus(str(tmp_path / "a.jsonl"))


def test_a_pair_with_three_columns_is_named(tmp_path):
    write(tmp_path / "parallel/en-kk.tsv", "one\tбір", "two\tекі\tүш")
    corpus = load_corpus(str(tmp_path))
    with pytest.raises(ValueError, match=r"en-kk\.tsv:2: 3 columns where 2 belong"):
        list(corpus.documents(PARALLEL, TRAIN))


def test_nothing_there_is_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file matches"):
        load_corpus(str(tmp_path / "absent.jsonl"))
    with pytest.raises(FileNotFoundError, match="no training text in the 29 languages"):
        load_corpus(str(tmp_path))


def test_files_of_other_languages_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    write(tmp_path / "mono/en.txt", "Some text.", "More text.")
    write(tmp_path / "mono/xho.txt", "Isivakalisi.")
    load_corpus(str(tmp_path))
    assert "left out 1 files of other languages" in caplog.text


def test_the_real_corpora(shared_dir):
    corpus = load_corpus(str(shared_dir / "corpora"))
    assert len(corpus.sources()) == 31
    assert len(corpus.pairs("en", "kk", TRAIN)) > 3000
    assert sum(len(text) for text in corpus.texts("kk", TRAIN)) > 1_500_000
    assert len(list(corpus.documents(KNOWLEDGE, HELD_OUT))) > 300


def test_languages_of_records_may_be_written_in_any_usual_form(tmp_path):
    rows = [
        {"text": "Ein Satz.", "language": "deu_Latn"},
        {"source": "One.", "target": "Бір.", "source_language": "en_US", "target_language": "kaz"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = load_corpus(str(tmp_path))
    assert list(corpus.sources()) == ["de", "parallel"]
    assert sum(len(corpus.pairs("en", "kk", split)) for split in (TRAIN, HELD_OUT)) == 1
