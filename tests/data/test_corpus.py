"""The corpus: the kinds of text that training reads, and a held-out split by content."""

import collections
import re

from marco_jax.data.corpus import EXAMPLE_PAIRS, Corpus
from marco_jax.data.load import load_corpus
from marco_jax.data.sources import Input, Source
from marco_jax.data.texts import HELD_OUT, KNOWLEDGE, PARALLEL, TRAIN, Pair
from marco_jax.languages import LANGUAGES


def test_the_default_corpus_has_all_languages_and_kinds(default_corpus):
    assert default_corpus.sources() == [*LANGUAGES, PARALLEL, KNOWLEDGE]
    for source in default_corpus.sources():
        for split in (TRAIN, HELD_OUT):
            assert any(default_corpus.documents(source, split)), (source, split)
    for language in set(LANGUAGES) - {"en"}:
        assert len(default_corpus.pairs("en", language, TRAIN)) > 300
        assert len(default_corpus.pairs("en", language, HELD_OUT)) > 15
    english = sum(len(text) for text in default_corpus.texts("en", TRAIN))
    assert english > 500_000


def test_no_message_is_in_both_splits_in_any_language(default_corpus):
    splits = collections.defaultdict(set)
    for language in set(LANGUAGES) - {"en"}:
        for split in (TRAIN, HELD_OUT):
            for pair in default_corpus.pairs("en", language, split):
                splits[pair.key].add(split)
    assert len(splits) > 900
    assert all(len(found) == 1 for found in splits.values())


def test_a_held_out_fact_is_held_out_in_every_language(default_corpus):
    splits = collections.defaultdict(set)
    languages = collections.defaultdict(set)
    for split in (TRAIN, HELD_OUT):
        for document in default_corpus.documents(KNOWLEDGE, split):
            splits[document.key].add(split)
            languages[document.key].add(document.language)
    assert all(len(found) == 1 for found in splits.values())
    assert len(languages["territory JP"]) == 29


def test_facts_that_share_a_line_with_a_held_out_fact_stay(default_corpus):
    train = {d.key for d in default_corpus.documents(KNOWLEDGE, TRAIN) if d.language == "en"}
    held_out = {d.key for d in default_corpus.documents(KNOWLEDGE, HELD_OUT) if d.language == "en"}
    assert len(train) > 10 * len(held_out)
    euro = [d for d in default_corpus.documents(KNOWLEDGE, TRAIN) if "Currency: Euro" in d.text]
    assert len(euro) > 20


def test_facts_are_true(default_corpus):
    texts = {
        (document.key, document.language): document.text
        for split in (TRAIN, HELD_OUT)
        for document in default_corpus.documents(KNOWLEDGE, split)
    }
    assert "The currency of Japan is the Japanese Yen." in texts["territory JP", "en"]
    assert "Amtssprache: Japanisch" in texts["territory JP", "de"]
    assert "日本的货币是日元。" in texts["territory JP", "zh"]


def test_the_split_does_not_depend_on_the_seed_and_templates_do(default_corpus):
    other = load_corpus(seed=1)
    for language in LANGUAGES:
        assert other.texts(language, HELD_OUT) == default_corpus.texts(language, HELD_OUT)
    prints = {c.source_fingerprint("parallel") for c in (other, default_corpus)}
    assert len(prints) == 2


def test_placeholders_survive(default_corpus):
    names = re.compile(r"%\(\w+\)[sd]")
    pairs = [p for p in default_corpus.pairs("en", "de", TRAIN) if names.search(p.source)]
    kept = [p for p in pairs if set(names.findall(p.source)) >= set(names.findall(p.target))]
    assert len(pairs) > 50 and len(kept) > 0.95 * len(pairs)


def test_pairs_between_two_languages_other_than_english(default_corpus):
    forth = default_corpus.pairs("kk", "ne", TRAIN) or default_corpus.pairs("ne", "kk", TRAIN)
    assert forth
    targets = {d.text for d in default_corpus.documents(PARALLEL, TRAIN) if d.language == "kk"}
    assert any("Nepali" in text and "Kazakh" in text for text in targets)


def test_pairs_are_found_in_either_direction(default_corpus):
    forth = default_corpus.pairs("en", "kk", HELD_OUT)
    back = default_corpus.pairs("kk", "en", HELD_OUT)
    assert [(p.source, p.target) for p in back] == [(p.target, p.source) for p in forth]
    assert back[0].source_language == "kk" and back[0].target_language == "en"


def parallel(*records: dict[str, str], **fields) -> Corpus:
    inputs = (Input(records=records, languages=("en", "kk")),)
    return Corpus([Source("parallel", "parallel", inputs, held_out=0.0, **fields)])


def test_what_is_the_same_in_both_languages_is_not_a_pair():
    corpus = parallel(
        {"source": "Save", "target": "Сақтау"}, {"source": "Wi-Fi", "target": "Wi-Fi"}
    )
    assert corpus.pairs("en", "kk", TRAIN) == [Pair("Save", "en", "kk", "Save", "Сақтау")]
    (forth, back) = corpus.documents("parallel", TRAIN)
    assert "Wi-Fi" not in forth.text + back.text


def test_pairs_of_an_input_that_are_kept_as_examples_have_a_limit():
    records = [{"source": f"item {n}", "target": f"зат {n}"} for n in range(EXAMPLE_PAIRS + 5)]
    corpus = parallel(*records, both_directions=False)
    assert len(corpus.pairs("en", "kk", TRAIN)) == EXAMPLE_PAIRS
    texts = "\n".join(document.text for document in corpus.documents("parallel", TRAIN))
    assert all(f"зат {n}" in texts for n in range(EXAMPLE_PAIRS + 5))


def test_a_source_has_several_inputs_each_read_in_its_own_way():
    inputs = (
        Input(records=({"body": "Бірінші", "id": "1"}, {"body": "Екінші"}), text="body"),
        Input(records=tuple({"text": f"жол {n}"} for n in range(3)), joined=True),
        Input(records=({"q": "Неше?", "a": "Екеу."}, {"q": "Қашан?", "a": ""}), text="q+a"),
    )
    corpus = Corpus([Source("kk", "text", inputs, "kk", held_out=0.0)])
    documents = list(corpus.documents("kk", TRAIN))
    texts = ["Бірінші", "Екінші", "жол 0\nжол 1\nжол 2", "Неше?\nЕкеу."]
    assert [document.text for document in documents] == texts
    assert documents[0].key == "1" and documents[1].key == "Екінші"
    assert documents[2].texts == ("жол 0", "жол 1", "жол 2")


def test_each_input_has_its_own_limit_of_held_out_documents():
    inputs = tuple(
        Input(records=tuple({"text": f"input {i}, text {n}"} for n in range(100))) for i in range(2)
    )
    source = Source("en", "text", inputs, "en", held_out=0.5, held_out_documents=7)
    texts = Corpus([source]).texts("en", HELD_OUT)
    assert [text[:7] for text in texts] == ["input 0"] * 7 + ["input 1"] * 7
