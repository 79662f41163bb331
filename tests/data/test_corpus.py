"""The corpus: a held-out split that leaks nowhere, and the kinds of text that training reads."""

import collections
import re

import pytest

from marco_jax.data.corpus import HELD_OUT, KNOWLEDGE, PARALLEL, TRAIN, Message, Pair, split_of
from marco_jax.data.load import load_corpus
from marco_jax.data.memory_corpus import Builder
from marco_jax.languages import LANGUAGES


def keys_of_split(split: str, count: int) -> list[str]:
    """Made-up keys that fall into a split."""
    keys = (f"Message number {n} is here" for n in range(10_000))
    return [key for key in keys if split_of(key) == split][:count]


def test_the_default_corpus_has_all_languages_and_kinds(default_corpus):
    assert default_corpus.sources() == [*LANGUAGES, PARALLEL, KNOWLEDGE]
    for source in default_corpus.sources():
        for split in (TRAIN, HELD_OUT):
            assert default_corpus.documents(source, split), (source, split)
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


def test_no_training_text_holds_a_held_out_text(default_corpus):
    """Of 20 characters and more, wherever it stands: prose, parallel text, another message."""
    held_out = set()
    for language in LANGUAGES:
        for text in default_corpus.texts(language, HELD_OUT):
            held_out.update(fold(line) for line in text.splitlines())
        for pair in default_corpus.pairs("en", language, HELD_OUT):
            held_out.update((fold(pair.source), fold(pair.target)))
    held_out = {text for text in held_out if len(text) >= 20}
    assert len(held_out) > 2000
    by_start = collections.defaultdict(list)
    for text in held_out:
        by_start[text[:20]].append(text)
    for source in default_corpus.sources():
        for document in default_corpus.documents(source, TRAIN):
            text = fold(document.text)
            for start in range(len(text) - 19):
                for leak in by_start.get(text[start : start + 20], ()):
                    assert not text.startswith(leak, start), (source, leak)


def fold(text: str) -> str:
    return " ".join(text.casefold().split())


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


def test_a_held_out_text_is_cut_out_of_longer_training_texts():
    (secret,) = keys_of_split(HELD_OUT, 1)
    keys = keys_of_split(TRAIN, 4)
    texts = [
        f"A line before.\n{secret}\nA line after.",
        f"Quoted in a sentence: {secret.upper()}.",
        f"Over the end of a line: {secret.replace(' ', chr(10), 1)}",
        "Nothing to hide.",
    ]
    builder = Builder("test")
    builder.add_texts("en", [Message(secret, secret)], joined=False)
    builder.add_texts("en", map(Message, keys, texts), joined=False)
    assert builder.build().texts("en", TRAIN) == ["A line before.\nA line after.", texts[3]]


def test_a_held_out_translation_leaks_neither_as_text_nor_in_a_pair():
    (secret,) = keys_of_split(HELD_OUT, 1)
    key, other = keys_of_split(TRAIN, 2)
    builder = Builder("test")
    builder.add_pairs(
        [
            Pair(secret, "en", "zh", secret, "这是第一条消息的中文译文"),
            Pair(key, "en", "zh", key, "这是第一条消息的中文译文"),
            Pair(other, "en", "zh", other, "完全不同的一条消息"),
        ]
    )
    corpus = builder.build()
    assert [pair.key for pair in corpus.pairs("en", "zh", TRAIN)] == [other]
    assert "这是第一条消息" not in "".join(d.text for d in corpus.documents(PARALLEL, TRAIN))


def test_untranslated_pairs_and_doublets_are_left_out():
    key, other = keys_of_split(TRAIN, 2)
    pair = Pair(key, "en", "kk", key, "аударма")
    builder = Builder("test")
    builder.add_pairs([pair, pair, Pair(other, "en", "kk", other, other)])
    assert builder.build().pairs("en", "kk", TRAIN) == [pair]


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="language 'xx' is unknown"):
        Builder("test").add_texts("xx", [], joined=False)
