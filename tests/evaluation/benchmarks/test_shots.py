"""Shots: none is the item itself, a limit changes nothing, lines may stand in any order."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco_jax.evaluation import benchmarks
from marco_jax.evaluation.benchmarks.items import Item
from marco_jax.evaluation.benchmarks.row_files import Row
from marco_jax.evaluation.benchmarks.shots import ShotSampler


def items(texts):
    return [Item(Row({"t": text}, f"f:{n}"), {"t": text}) for n, text in enumerate(texts)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=9, max_size=20),
    st.sampled_from(["random", "first_n", "by_content", "shuffled_42"]),
    st.integers(0, 3),
)
def test_an_item_is_not_its_own_shot_even_where_it_stands_twice(texts, kind, shots):
    pool = items(texts)
    texts_apart = min(sum(other != text for other in texts) for text in texts)
    sampler = ShotSampler(kind, pool, min(shots, texts_apart), excludes_item=True)
    for item in pool:
        drawn = sampler.draw(item)
        assert len(drawn) == min(shots, texts_apart)
        assert item.texts not in [shot.texts for shot in drawn]


def rows(count):
    return [
        {
            "passage": f"passage {n}",
            "question": f"question {n}?",
            "choices": [f"{n} {letter}" for letter in "abcd"],
            "answer": n % 4,
        }
        for n in range(count)
    ]


def write(folder, lines):
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "npi_Deva.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("format", ["letter", "cloze"])
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_belebeles_prompts_do_not_depend_on_the_order_of_lines(tmp_path, format, shots):
    lines = rows(12)
    orders = [write(tmp_path / "a", lines), write(tmp_path / "b", lines[5:] + lines[4::-1])]
    found = [
        {
            (prompt.context, prompt.choices, prompt.gold)
            for prompt in benchmarks.prompts("belebele", "ne", order, format=format, shots=shots)
        }
        for order in orders
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 12


@pytest.mark.parametrize("format", ["letter", "harness", "cloze"])
def test_a_limit_keeps_the_shots_of_the_items_it_leaves(tmp_path, format):
    folder = write(tmp_path, rows(12))
    every = list(benchmarks.prompts("belebele", "ne", folder, format=format, shots=2))
    some = list(benchmarks.prompts("belebele", "ne", folder, format=format, shots=2, limit=3))
    assert some == every[:3]


def test_the_paper_shows_one_example_of_belebele(tmp_path):
    folder = write(tmp_path, rows(4))
    prompt = next(benchmarks.prompts("belebele", "ne", folder))
    assert prompt.context.count("\nAnswer:") == 2
