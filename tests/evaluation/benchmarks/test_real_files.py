"""Every benchmark on its real files, those that are there."""

import collections

import pytest

from marco_jax.evaluation import benchmarks
from marco_jax.evaluation.benchmarks.spec import LETTERS

# Items that the published files have, by benchmark and language.
COUNTS = {
    ("xcopa", "zh"): 500,
    ("xcopa", "qu"): 100,
    ("xcopa", "en"): 100,
    ("xstorycloze", "my"): 1511,
    ("xnli", "sw"): 2490,
    ("pawsx", "de"): 2000,
    ("pawsx", "en"): 2000,
    ("belebele", "kk"): 900,
    ("belebele", "ne"): 900,
    ("tydiqa", "sw"): 499,
    ("mlqa", "zh"): 504,
    ("mgsm", "ja"): 250,
    ("agieval", "en"): 254 + 651 + 230 + 220,
    ("agieval_cloze", "zh"): 118,
    ("flores_passages", "ja-zh"): 488,
    ("flores_passages_to_en", "az"): 488,
    ("marco_bench_mif", "kk"): 541,
}


@pytest.fixture
def data(shared_dir):
    return shared_dir / "benchmarks"


@pytest.mark.parametrize(("task", "language"), COUNTS)
def test_items_of_real_files(data, task, language):
    benchmark = benchmarks.get_benchmark(task)
    for name, form in benchmark.formats.items():
        found = list(benchmarks.prompts(task, language, data, format=name, shots=0))
        assert len(found) == COUNTS[task, language]
        for prompt in found:
            assert "{" not in prompt.context.split("\n")[-1] or "$" in prompt.context
            if form.choices:
                assert all(0 <= gold < len(prompt.choices) for gold in prompt.golds)
                assert prompt.choices == tuple(prompt.delimiter + o for o in prompt.options)
            else:
                assert prompt.choices == () and prompt.gold is None
                assert prompt.max_new_tokens > 0


@pytest.mark.parametrize(
    ("task", "language", "parts", "items"),
    [("mmlu", "en", 39, 11_093), ("cmmlu", "zh", 45, 7_609), ("jmmlu", "ja", 40, 5_329)],
)
def test_subjects_of_real_files(data, task, language, parts, items):
    found = list(benchmarks.prompts(task, language, data))
    assert len(found) == items
    by_part = collections.Counter(prompt.part for prompt in found)
    assert len(by_part) == parts
    # All four letters are answers, about as often.
    golds = collections.Counter(prompt.gold for prompt in found)
    assert min(golds[n] for n in range(4)) > 0.2 * items


def test_the_two_formats_with_letters_ask_the_same(data):
    for language in ("kk", "ja"):
        letter = list(benchmarks.prompts("belebele", language, data, shots=0))
        harness = list(benchmarks.prompts("belebele", language, data, shots=0, format="harness"))
        assert [p.gold for p in letter] == [p.gold for p in harness]
        assert {p.choices for p in letter + harness} == {(" A", " B", " C", " D")}
        for ours, theirs in zip(letter, harness, strict=True):
            assert ours.context.partition("\n")[0] == theirs.context[3:].partition("\n")[0]


def test_tydiqas_answers_are_held_back_in_one_public_copy(data):
    """XTREME publishes the questions alone: prompts work, metrics do not."""
    prompt = next(benchmarks.prompts("tydiqa", "ko", data, shots=0))
    assert prompt.references == ()
    with pytest.raises(benchmarks.DataError, match="a shot needs an answer, and this has none"):
        next(benchmarks.prompts("tydiqa", "ko", data, shots=1))


def test_a_published_file_with_a_known_broken_line_is_read(data):
    found = list(benchmarks.prompts("marco_bench_mif", "zh", data))
    assert len(found) == 541
    assert found[14].location.endswith("zh_local.jsonl:15")
    assert found[14].context.endswith('段落之间用双换行符（"\n\n"）分隔。')


def test_agieval_with_its_own_samples(data):
    found = benchmarks.prompts("agieval", "zh", data)
    by_part = collections.Counter(prompt.part for prompt in found)
    assert by_part["gaokao-geography"] == 199 and sum(by_part.values()) == 2099
    assert found.left_out == []


def test_quoted_fields_of_xtremes_paws_x(data):
    found = list(benchmarks.prompts("pawsx", "ko", data, shots=0))
    # In the original each quote stands alone.
    assert not any('""' in text for prompt in found for text in prompt.options)
    assert sum('"' in prompt.options[0] for prompt in found) > 100


def test_languages_with_files(data):
    assert benchmarks.available_languages("mlqa", data) == ["de", "en", "vi", "zh"]
    assert "kk" in benchmarks.available_languages("belebele", data)
    assert benchmarks.available_languages("wmt16", data) == []


def test_every_letter_format_has_options():
    for benchmark in benchmarks.BENCHMARKS.values():
        for form in benchmark.formats.values():
            assert form.choices != LETTERS or benchmark.options
