"""Planted benchmark items are found in a corpus, and nothing else is."""

import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco_jax.ngrams import CHARACTERS, WORDS, NgramIndex, normalized_words

ENGLISH = (
    "Which of the following gases makes up the largest part of the air that people breathe "
    "on the surface of the Earth today?"
)
CHINESE = (
    "下列哪一种气体在人们每天于地球表面所呼吸的空气之中"
    "所占的体积份额是最大的一种？请从四个选项中选择。"
)


@settings(deadline=None)
@given(st.lists(st.text("abcdefg", min_size=1, max_size=6), min_size=WORDS, max_size=40), st.data())
def test_a_run_of_words_is_found_wherever_it_stands_and_however_it_is_written(words, data):
    index = NgramIndex()
    assert index.add(7, [" ".join(words)], "en")
    start = data.draw(st.integers(0, len(words) - WORDS))
    run = words[start : start + WORDS]
    text = "Zzz, zzz: " + " — ".join(run).upper() + "! zzz"
    assert index.hits([text])[0][7] == " ".join(run)


@settings(deadline=None)
@given(st.lists(st.text("abcdefg", min_size=1, max_size=6), min_size=WORDS, max_size=30))
def test_fewer_words_are_not_found(words):
    index = NgramIndex()
    index.add(0, [" ".join(words)], "en")
    assert not index.hits([" ".join(words[: WORDS - 1]) + " zzz"])[0]


def test_characters_stand_for_words_where_there_are_no_spaces():
    index = NgramIndex()
    assert index.add(1, [CHINESE], "zh")
    count = CHARACTERS["zh"]
    plain = "".join(normalized_words(CHINESE))
    assert index.hits(["前言，" + plain[3 : 3 + count] + "。"])[0]
    assert not index.hits([plain[3 : 2 + count]])[0]
    # One phrase of everyday Thai is shorter than what counts.
    assert CHARACTERS["th"] > 13


def test_a_text_that_is_too_short_is_counted_as_unchecked():
    assert not NgramIndex().add(0, ["Paris", "Rome"], "en")


def plain_hits(items, texts):
    """What the index should find, by the definition: every n-gram of every text compared."""

    def words_of(text):
        folded = unicodedata.normalize("NFKC", text).casefold()
        kept = [char if unicodedata.category(char)[0] in "LMN" else " " for char in folded]
        return "".join(kept).split()

    def ngrams(text, language):
        words, count = words_of(text), CHARACTERS.get(language, WORDS)
        pieces, joint = ("".join(words), "") if language in CHARACTERS else (words, " ")
        return [joint.join(pieces[n : n + count]) for n in range(len(pieces) - count + 1)]

    found = []
    for text in texts:
        shared = {}
        for key, (item, language) in enumerate(items):
            own = set(ngrams(item, language))
            first = next((ngram for ngram in ngrams(text, language) if ngram in own), None)
            if first is not None:
                shared[key] = first
        found.append(shared)
    return found


# Few words and characters, so that n-grams meet; parts of texts, so that some cross their ends.
LETTERS = st.text("aAb。 é\u0301ก水", max_size=150)
SENTENCES = st.lists(st.sampled_from(["a", "b", "C", "é", "水ก"]), max_size=45).map(" ".join)
TEXTS = st.one_of(LETTERS, SENTENCES)


@settings(deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.sampled_from(["en", "zh", "th", "ja", "my"])), max_size=5),
    st.lists(TEXTS, max_size=5),
    st.data(),
)
def test_hits_are_those_of_the_definition(items, texts, data):
    index = NgramIndex()
    for key, (text, language) in enumerate(items):
        index.add(key, [text], language)
        if text and data.draw(st.booleans()):
            texts.append("b " + text + data.draw(TEXTS))
    assert index.hits(texts) == plain_hits(items, texts)


def test_texts_added_after_a_search_are_found(pairs=((ENGLISH, "en"), (CHINESE, "zh"))):
    index = NgramIndex()
    for key, (text, language) in enumerate(pairs):
        assert not index.hits([text])[0]
        index.add(key, [text], language)
        assert list(index.hits([text])[0]) == [key]


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
