"""The design of "pick the right translation"."""

import collections

import pytest

from marco_jax.evaluation.translation_items import pick_items, translation_items


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
    prompts, references = translation_items(pairs, [], 5, seed=0)
    assert len(prompts) == len(references) == 5
    assert translation_items(pairs, [], 9, seed=0)[0][:5] == prompts
