"""Planted benchmark items are found in a corpus, and nothing else is."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.ngrams import CHARACTERS, WORDS, NgramIndex, normalized_words

ENGLISH = (
    "Which of the following gases makes up the largest part of the air that people breathe "
    "on the surface of the Earth today?"
)
CHINESE = (
    "下列哪一种气体在人们每天于地球表面所呼吸的空气之中"
    "所占的体积份额是最大的一种？请从四个选项中选择。"
)


@given(st.lists(st.text("abcdefg", min_size=1, max_size=6), min_size=WORDS, max_size=40), st.data())
def test_a_run_of_words_is_found_wherever_it_stands_and_however_it_is_written(words, data):
    index = NgramIndex()
    assert index.add(7, [" ".join(words)], "en")
    start = data.draw(st.integers(0, len(words) - WORDS))
    run = words[start : start + WORDS]
    text = "Zzz, zzz: " + " — ".join(run).upper() + "! zzz"
    assert index.hits(text)[7] == " ".join(run)


@given(st.lists(st.text("abcdefg", min_size=1, max_size=6), min_size=WORDS, max_size=30))
def test_fewer_words_are_not_found(words):
    index = NgramIndex()
    index.add(0, [" ".join(words)], "en")
    assert not index.hits(" ".join(words[: WORDS - 1]) + " zzz")


def test_characters_stand_for_words_where_there_are_no_spaces():
    index = NgramIndex()
    assert index.add(1, [CHINESE], "zh")
    count = CHARACTERS["zh"]
    plain = "".join(normalized_words(CHINESE))
    assert index.hits("前言，" + plain[3 : 3 + count] + "。")
    assert not index.hits(plain[3 : 2 + count])
    # One phrase of everyday Thai is shorter than what counts.
    assert CHARACTERS["th"] > 13


def test_a_text_that_is_too_short_is_counted_as_unchecked():
    assert not NgramIndex().add(0, ["Paris", "Rome"], "en")


@pytest.fixture
def files(tmp_path):
    """MMLU in its public layout with three questions, and a corpus that holds one of them."""
    folder = tmp_path / "benchmarks" / "mmlu" / "test"
    folder.mkdir(parents=True)
    other = ENGLISH.replace("gases", "liquids").replace("air", "ocean").replace("breathe", "sail")
    other = other.replace("largest", "smallest").replace("Earth", "Moon").replace("people", "ships")
    rows = [f'"{text}",one,two,three,four,A' for text in (ENGLISH, other, "What is it?")]
    (folder / "astronomy_test.csv").write_text("\n".join(rows) + "\n")
    documents = [
        {"text": f"An exam. Q1) {ENGLISH.lower()} Tick one of four boxes.", "language": "en"},
        {"text": "Nothing to see here, move along: of no interest at all.", "language": "en"},
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in documents))
    return tmp_path


def test_the_command_names_the_item_and_the_document(files):
    out = files / "contamination.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "marco_jax", "eval", "--contamination", "--tasks=mmlu"),
            f"--data={files / 'corpus.jsonl'}",
            f"--data_dir={files / 'benchmarks'}",
            f"--out={out}",
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    (row,) = found["overlap"]
    assert (row["items"], row["checked"], row["contaminated"]) == (3, 2, 1)
    assert row["by_source"] == {"en": 1}
    assert found["hits"][0]["item"].endswith("astronomy_test.csv:1")
    assert "1 of 2 training documents" in done.stdout
