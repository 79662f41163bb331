"""What is held out: by content alone, and no text of it occurs in training text.

A leak is a held-out text of some length (`is_long`) that is found, whatever its spacing and case,
in a training document. A run leaves such texts out of evaluation.
"""

import itertools
import json
import random
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest

from marco_jax.data import run_stores
from marco_jax.data.corpus import Corpus
from marco_jax.data.leaks import LeakFinder
from marco_jax.data.load import load_corpus
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.sources import Input, Source
from marco_jax.data.texts import (
    HELD_OUT,
    PARALLEL,
    TRAIN,
    Document,
    hash_units,
    is_held_out,
    is_long,
)
from marco_jax.data.training_data import TrainingData
from marco_jax.training.defaults import training_config

WORDS = {
    "en": ["river", "market", "teacher", "letter", "winter", "railway", "valley", "garden"],
    "kk": ["өзен", "базар", "мұғалім", "хат", "қыс", "теміржол", "алқап", "бақша"],
    "ne": ["नदी", "बजार", "शिक्षक", "पत्र", "जाडो", "रेल", "उपत्यका", "बगैंचा"],
}


def sentences(language: str, count: int, first: int = 0) -> list[str]:
    """Sentences that differ, none of them part of another; the n-th is the same in each call."""
    rngs = (random.Random(f"{language} {n}") for n in range(first, first + count))
    return [
        " ".join([f"<{rng.randrange(10**9):09}>", *rng.choices(WORDS[language], k=6)])
        for rng in rngs
    ]


def texts(name: str, language: str, values, held_out: float = 0.1, **fields) -> Source:
    """A source of texts; their ids name the source, so that no two sources share one."""
    records = tuple({"id": f"{name}-{n}", "text": text} for n, text in enumerate(values))
    inputs = (Input(records=records),)
    return Source(name, "text", inputs, language, held_out, 10_000, **fields)


def pairs(name: str, values, held_out: float = 0.1, languages=("en", "kk"), **fields) -> Source:
    records = tuple({"source": x, "target": y} for x, y in values)
    inputs = (Input(records=records, languages=languages),)
    return Source(name, "parallel", inputs, "", held_out, 10_000, **fields)


def fold(text: str) -> str:
    return " ".join(text.casefold().split())


def evaluated(corpus: Corpus) -> set[str]:
    """Every text that may be evaluated on, by every way to ask for it."""
    found = set()
    for info in corpus.infos():
        for document in corpus.documents(info.name, HELD_OUT):
            found.update(document.texts or (document.text,))
        found.update(corpus.texts(info.language, HELD_OUT) if info.language else ())
    for x, y in itertools.permutations(WORDS, 2):
        for pair in corpus.pairs(x, y, HELD_OUT):
            found.update((pair.source, pair.target))
    return {folded for text in found if is_long(folded := fold(text))}


def leaks(corpus: Corpus) -> set[str]:
    """The texts that may be evaluated on and occur in a training document."""
    documents = (d for name in corpus.sources() for d in corpus.documents(name, TRAIN))
    trained = "\0".join(fold(document.text) for document in documents)
    return {text for text in evaluated(corpus) if text in trained}


def check_no_leaks(corpus: Corpus, tokenizer, folder) -> set[str]:
    """Prepares a corpus as a run does; returns the leaks that there would be otherwise."""
    before, kept = leaks(corpus), evaluated(corpus)
    stores = prepare_stores(corpus, tokenizer, corpus.sources(), folder)
    run_stores._find_leaks(corpus, stores)
    assert leaks(corpus) == set()
    # Nothing else is taken from evaluation, but for the other side of a pair.
    assert evaluated(corpus) and evaluated(corpus) <= kept - before
    return before


def test_the_same_texts_under_other_ids_are_held_out_alike(tokenizer, tmp_path):
    values = sentences("kk", 300)
    shuffled = random.Random(0).sample(values, len(values))
    corpus = Corpus([texts("web", "kk", values), texts("books", "kk", shuffled)])
    held_out = {
        name: {d.text for d in corpus.documents(name, HELD_OUT)} for name in corpus.sources()
    }
    assert held_out["web"] == held_out["books"] and len(held_out["web"]) > 10
    # No text has to be left out for that.
    assert check_no_leaks(corpus, tokenizer, tmp_path) == set()
    assert len(evaluated(corpus)) == len(held_out["web"])


def test_sources_that_hold_out_unequal_shares_of_the_same_texts(tokenizer, tmp_path):
    values = sentences("kk", 300)
    more, less = texts("web", "kk", values[:200], 0.3), texts("books", "kk", values[100:], 0.05)
    corpus = Corpus([more, less])
    split = {n: {d.text for d in corpus.documents(n, HELD_OUT)} for n in corpus.sources()}
    assert split["books"] & set(values[:200]) <= split["web"]
    found = check_no_leaks(corpus, tokenizer, tmp_path)
    assert found == {fold(t) for t in (split["web"] - split["books"]) & set(values[100:])} != set()


def test_a_side_of_a_pair_that_is_a_document_of_another_source(tokenizer, tmp_path):
    english, kazakh = sentences("en", 200), sentences("kk", 200)
    sources = [pairs("opus", zip(english, kazakh, strict=True), 0.2)]
    # English decides in both sources; the Kazakh source knows nothing of the English text.
    sources += [texts("en", "en", english, 0.2), texts("kk", "kk", kazakh, 0.2)]
    assert leaks(Corpus(sources[:2])) == set()
    found = check_no_leaks(Corpus(sources), tokenizer, tmp_path)
    assert found and found <= {fold(text) for text in kazakh}


@pytest.mark.parametrize(
    "document",
    ["{0}. {1}. {2}", "{0}\n{1}\n{2}", "{0}! «{1}?» {2}.", "{0}\n\n — {1}…\n{2}", "{0}। {1}।{2}"],
)
def test_a_text_that_is_a_sentence_or_a_line_of_another_document(document, tokenizer, tmp_path):
    english, kazakh = sentences("en", 120), sentences("kk", 120)
    documents = [document.format(*english[n : n + 3]) for n in range(0, 90, 3)]
    sources = [pairs("opus", zip(english, kazakh, strict=True), 0.3), texts("en", "en", documents)]
    found = check_no_leaks(Corpus(sources), tokenizer, tmp_path)
    assert len(found) > 10 and found <= {fold(text) for text in english}


@pytest.mark.parametrize(
    "form",
    [
        "{0}. {1}.",  # a paragraph of two sentences inside a longer one
        "{0}\n\n{1}",
        "Version 3.1 of {0}",
        "{0}, says Dr. Aru",
        "%(name)s: {0}…! {1}",
    ],
)
def test_a_text_that_sentences_are_cut_out_of(form, tokenizer, tmp_path):
    english, kazakh = sentences("en", 120), sentences("kk", 60)
    values = [form.format(a, b) for a, b in zip(english[::2], english[1::2], strict=True)]
    documents = [f"Something else before. {text}. And then more of it." for text in values[:50]]
    sources = [pairs("opus", zip(values, kazakh, strict=True), 0.5), texts("en", "en", documents)]
    found = check_no_leaks(Corpus(sources), tokenizer, tmp_path)
    assert len(found) > 10 and found <= {fold(text) for text in values}


def test_a_sentence_that_is_just_long_enough(tokenizer, tmp_path):
    """Its last mark counts, and is cut from a sentence inside a document."""
    chinese = [f"这一个项目是必须{character}。" for character in "甲乙丙丁戊己庚辛壬癸"]
    assert all(map(is_long, chinese)) and not any(is_long(text[:-1]) for text in chinese)
    english = sentences("en", 10)
    source = pairs("opus", zip(english, chinese, strict=True), 0.9, ("en", "zh"))
    corpus = Corpus([source, texts("zh", "zh", ["前面还有另一句。" + "".join(chinese)], 0.0)])
    assert len(corpus.pairs("en", "zh", HELD_OUT)) > 2
    run_stores._find_leaks(corpus, prepare_stores(corpus, tokenizer, ["zh"], tmp_path))
    assert corpus.pairs("en", "zh", HELD_OUT) == []


def test_a_text_in_another_normal_form(tokenizer):
    values = [f"Café à l'hôtel numéro {n}" for n in range(50)]
    decomposed = [unicodedata.normalize("NFD", text) for text in values]
    assert [is_held_out(text, 0.5) for text in values] == [
        is_held_out(text, 0.5) for text in decomposed
    ]
    units = [hash_units([Document(text, "fr", "web", "")]).tolist() for text in decomposed]
    finder = LeakFinder(values)
    assert all(len(finder.find(hashes)) == 1 for hashes in units)


def test_short_texts_are_common_and_stay(tokenizer, tmp_path):
    values = [(f"Open {n}", f"Ашу {n}") for n in range(100)]
    corpus = Corpus([pairs("opus", values, 0.2), texts("kk", "kk", [y for _, y in values], 0.0)])
    before = corpus.pairs("en", "kk", HELD_OUT)
    run_stores._find_leaks(corpus, prepare_stores(corpus, tokenizer, ["kk"], tmp_path))
    assert corpus.pairs("en", "kk", HELD_OUT) == before != []


def test_texts_that_differ_in_spacing_case_and_outer_marks(tokenizer, tmp_path):
    values = sentences("kk", 300)
    same = [text.upper().replace(" ", "  \n ") + " " for text in values[:150]]
    same += [f"\t“{text.title()}”." for text in values[150:]]
    # With equal shares they are held out alike, with unequal ones they are found.
    equal = Corpus([texts("web", "kk", values, 0.2), texts("books", "kk", same, 0.2)])
    assert check_no_leaks(equal, tokenizer, tmp_path / "equal") == set()
    unequal = Corpus([texts("web", "kk", values, 0.2), texts("books", "kk", same, 0.0)])
    assert len(leaks(unequal)) > 20
    with pytest.raises(AssertionError):  # every text leaks, and none is left to evaluate on
        check_no_leaks(unequal, tokenizer, tmp_path / "unequal")
    assert evaluated(unequal) == set()


def test_a_translation_of_two_english_texts(tokenizer, tmp_path):
    english, kazakh = sentences("en", 300), sentences("kk", 200)
    source = pairs("opus", zip(english, [*kazakh, *kazakh[:100]], strict=True), 0.2)
    corpus = Corpus([source])
    keys = {split: {p.key for p in corpus.pairs("en", "kk", split)} for split in (HELD_OUT, TRAIN)}
    assert keys[HELD_OUT].isdisjoint(keys[TRAIN])
    found = check_no_leaks(corpus, tokenizer, tmp_path)
    assert found and found <= {fold(text) for text in kazakh}
    # The English side of a pair that is left out goes with it.
    assert {p.target for p in corpus.pairs("en", "kk", HELD_OUT)}.isdisjoint(
        text for text in kazakh if fold(text) in found
    )


def test_a_prompt_is_held_out_with_all_its_answers(tokenizer):
    def records(name):
        for n, text in enumerate(sentences("en", 100)):
            yield {"id": f"{name} {n}", "prompt": text, "response": f"{name} answers {n}"}

    sources = [
        Source(name, "chat", (Input(records=tuple(records(name))),), "en", 0.2)
        for name in ("one", "two")
    ]
    corpus = Corpus(sources)
    asked = {
        (name, split): {d.turns[0].content for d in corpus.documents(name, split)}
        for name in ("one", "two")
        for split in (TRAIN, HELD_OUT)
    }
    assert asked["one", HELD_OUT] == asked["two", HELD_OUT] != set()
    assert asked["one", HELD_OUT].isdisjoint(asked["two", TRAIN])
    assert len(asked["one", HELD_OUT] | asked["one", TRAIN]) == 100


def test_a_source_that_is_streamed(tokenizer, tmp_path):
    values, other = sentences("kk", 400), sentences("en", 150)
    sources = [
        texts("prepared", "kk", values[:300], 0.3),
        # Documents with a held-out text of another source are passed over while they are read.
        texts("stream", "kk", [f"{a}.\n{b}." for a, b in itertools.pairwise(values)], 0.2,
              streamed=True),
        pairs("opus", zip(other, values, strict=False), 0.1, streamed=True),
        texts("en", "en", other, 0.1),
    ]  # fmt: skip
    corpus = Corpus(sources)
    assert len(leaks(corpus)) > 20
    config = training_config()
    config.batch.length, config.seed = 4096, 0
    stage = SimpleNamespace(name="s", mixture="flat", steps=200)
    plan = SimpleNamespace(stages=[stage], batch_rows=2)
    data = TrainingData(config, tmp_path, corpus, tokenizer, plan)
    ids = [
        row[segments > 0]
        for batch in map(data.batch, range(stage.steps))
        for row, segments in zip(batch["tokens"], batch["segment_ids"], strict=True)
    ]
    # The ids of ByteTokenizer; rows may begin and end within a character.
    ids = np.concatenate(ids)
    trained = ((ids[ids != tokenizer.eos_id] + 33) % 256).astype(np.uint8).tobytes()
    trained = fold(trained.decode(errors="ignore"))
    kept = evaluated(corpus)
    assert len(kept) > 20
    assert {text for text in kept if text in trained} == set()
    # What does not hold such a text is read: the rest of each source.
    for name in ("stream", "opus"):
        documents = [fold(d.text) for d in corpus.documents(name, TRAIN)]
        read = [text for text in documents if not any(leak in text for leak in kept)]
        assert len(read) < len(documents)
        assert sum(text in trained for text in read) > 0.8 * len(read)


def write(folder, form: str, values) -> str:
    lines = {
        "jsonl": (json.dumps({"text": v, "id": str(n)}) for n, v in enumerate(values)),
        "txt": values,
        "tsv": (f"{n}\t{value}" for n, value in enumerate(values)),
    }[form]
    folder.mkdir(exist_ok=True)
    path = folder / f"texts.{form}"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def test_the_split_depends_on_nothing_but_the_text(tmp_path):
    values = sentences("kk", 200)
    expected = {text for text in values if is_held_out(text, 0.1)}
    assert 5 < len(expected) < 40
    for name, form, order, seed in [
        ("web", "jsonl", values, 0),
        ("books", "jsonl", values[::-1], 1),
        ("kk", "txt", values, 2),
        ("news", "tsv", values[::-1], 3),
    ]:
        path = write(tmp_path / name, form, order)
        fields = {"columns": ["id", "text"]} if form == "tsv" else {}
        entry = {"name": name, "kind": "text", "language": "kk", "files": path, "held_out": 0.1}
        declaration = tmp_path / f"{name}.json"
        declaration.write_text(json.dumps({"sources": [entry | fields]}))
        corpus = load_corpus(str(declaration), seed)
        assert {d.text for d in corpus.documents(name, HELD_OUT)} == expected
        train = {d.text for d in corpus.documents(name, TRAIN)}
        assert train == set(values) - expected
    # A translation in either direction, and in two files instead of one.
    records = [{"source": f"{n}", "target": text} for n, text in enumerate(values)]
    turned = pairs("turned", ((r["source"], r["target"]) for r in records), 0.1, ("kk", "en"))
    found = Corpus([turned]).pairs("kk", "en", HELD_OUT)
    assert {pair.target for pair in found} == expected


@pytest.mark.parametrize("by", ["id", "line", "field"])
def test_the_english_text_of_a_record_decides(by, tmp_path):
    english, kazakh = sentences("en", 200), sentences("kk", 200)
    expected = [k for e, k in zip(english, kazakh, strict=True) if is_held_out(e, 0.1)]
    order = list(range(200))
    if by == "id":
        random.Random(0).shuffle(order)
    rows = [
        {"text": kazakh[n]}
        | ({"id": f"d{n}"} if by == "id" else {})
        | ({"english": english[n]} if by == "field" else {})
        for n in order
    ]
    (tmp_path / "kk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [
        {"text": text} | ({"id": f"d{n}"} if by == "id" else {}) for n, text in enumerate(english)
    ]
    (tmp_path / "en.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "kk", "kind": "text", "language": "kk", "files": "kk.jsonl", "held_out": 0.1}
    entry |= {} if by == "field" else {"english": "en.jsonl"}
    (tmp_path / "sources.json").write_text(json.dumps({"sources": [entry]}))
    corpus = load_corpus(str(tmp_path / "sources.json"))
    assert sorted(corpus.texts("kk", HELD_OUT)) == sorted(expected) != []


def test_the_default_corpus(tokenizer, tmp_path):
    corpus = load_corpus()
    held_out = evaluated(corpus)
    stores = prepare_stores(corpus, tokenizer, ["kk", "ne", PARALLEL], tmp_path)
    run_stores._find_leaks(corpus, stores)
    lines = {
        fold(line)
        for name in stores
        for document in corpus.documents(name, TRAIN)
        for text in document.texts or (document.text,)
        for line in text.split("\n")
    }
    assert held_out & lines
    assert not evaluated(corpus) & lines
