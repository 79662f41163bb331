"""How answers are compared, against lm-evaluation-harness's functions and by hand."""

import importlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marco_jax.evaluation import answers, math_answers

pytest.importorskip("lm_eval")
PIECES = ["the ", "An", "दो", "là ", "der", "日本", "ab", " ", ".", "-", "1", "，", "ال", "$", "3,"]
PHRASES = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
LATEX = st.lists(
    st.sampled_from(
        ["\\frac", "\\sqrt", "{", "}", "12", "3", "/", "=", "x", ".5", "0.5", "$", "\\boxed{", " "]
        + ["\\text{ cm}", "\\%", "^\\circ", "\\left(", "\\dfrac", "-", "\n", "a b"]
    ),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(PHRASES, st.lists(PHRASES, min_size=1, max_size=3), st.sampled_from(["en", "ar", "sw"]))
def test_tydiqas_span_scores_are_the_harnesss(answer, references, language):
    theirs = importlib.import_module("lm_eval.tasks.tydiqa.utils")
    expected = theirs.process_results_lang({"answers": references}, [answer], language)
    rules = answers.SPAN_RULES["tydiqa"]
    assert answers.f1(answer, references, language, rules) == pytest.approx(expected["f1"])
    assert answers.exact_match(answer, references, language, rules) == expected["exact_match"]


@settings(max_examples=300, deadline=None)
@given(
    PHRASES,
    st.lists(PHRASES, min_size=1, max_size=3),
    st.sampled_from(["en", "ar", "de", "es", "hi", "vi", "zh"]),
)
def test_mlqas_span_scores_are_the_harnesss(answer, references, language):
    theirs = importlib.import_module("lm_eval.tasks.mlqa.utils")
    expected = theirs.process_results_lang({"answers": references}, [answer], language)
    rules = answers.SPAN_RULES["mlqa"]
    assert answers.f1(answer, references, language, rules) == pytest.approx(expected["f1"])
    assert answers.exact_match(answer, references, language, rules) == expected["exact_match"]


@settings(max_examples=500, deadline=None)
@given(LATEX, LATEX)
@example("so $x = \\dfrac12$", "\\frac{1}{2}")
@example("\\boxed{x=3}", "3")
def test_mathematics_is_compared_as_the_harness_does(given_text, right):
    theirs = importlib.import_module("lm_eval.tasks.agieval.utils")
    assert math_answers.same_answer(given_text, right) == theirs.is_equiv(given_text, right)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,$- a。答", max_size=12))
@example("5 + 6 = 11. The answer is 18.")
def test_the_last_number_is_the_harnesss(text):
    from lm_eval.filters.extraction import RegexFilter

    pattern = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    assert answers.last_number(text) == pattern.apply([[text]], [{}])[0][0]


def test_numbers_by_hand():
    assert answers.number_in("5 + 6 = 11。答案是 11。 答案是 12。", "答案是 {}。") == "11"
    assert answers.number_in("答案是 11", "答案是 {}。") == "[invalid]"
    assert answers.last_number("no number") == "[invalid]"
    assert answers.same_number("1,000.", ["1000"]) == 1
    assert answers.same_number("[invalid]", ["18"]) == 0


def test_scripts_without_spaces_are_compared_by_character():
    rules = answers.SPAN_RULES["tydiqa"]
    assert answers.f1("東京都", ["東京"], "ja", rules) == 0
    assert answers.f1("東京都", ["東京"], "ja", rules, segmented=True) == pytest.approx(0.8)
    assert answers.f1("กรุงเทพ", ["กรุง"], "th", rules, segmented=True) > 0.7
    # Languages with spaces are compared as before.
    assert answers.f1("big town", ["town"], "en", rules, segmented=True) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "text", ["Paris.", 'It is "Paris"', "The answer is: Paris", "答え：Paris", "Paris. It is big."]
)
def test_spans_find_the_answer_in_a_wordy_one(text):
    rules = answers.SPAN_RULES["tydiqa"]
    best = max(answers.f1(span, ["Paris"], "en", rules) for span in answers.spans(text))
    assert best == 1
    assert answers.spans(" ") == [""]
