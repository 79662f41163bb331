"""Scorers by name: what they give, and what they need of a row."""

import pytest

from marco_jax.evaluation.scorers import load_scorer, score_answers


def scores(name, rows, answers):
    return score_answers(load_scorer(name), rows, answers)


@pytest.mark.parametrize(("language", "tokenizer"), [("de", "13a"), ("zh", "zh"), ("ja", "char")])
def test_bleu_is_sacrebleus_of_one_sentence(language, tokenizer):
    import sacrebleu

    pairs = [("das ist ein Haus", "das ist das Haus."), ("新的 一天", "新的一天开始了"), ("", "x")]
    rows = [{"language": language, "reference": right} for _, right in pairs]
    found = scores("bleu", rows, [answer for answer, _ in pairs])
    expected = [
        sacrebleu.sentence_bleu(answer, [right], tokenize=tokenizer, use_effective_order=True).score
        for answer, right in pairs
    ]
    assert found == pytest.approx(expected)


def test_a_number_is_right_wherever_it_stands_last():
    answers = ["So it is 18.", "18 apples, so 19", "1,800", "no idea"]
    assert scores("number", [{"reference": "18"}] * 4, answers) == [1, 0, 0, 0]
    assert scores("number", [{"reference": "The answer is 1800"}], ["1,800"]) == [1]


def test_formulas_are_compared_after_normalisation():
    answers = [r"so \boxed{\frac{1}{2}}", "$x = 0.5$", "3"]
    assert scores("math", [{"reference": r"\boxed{\frac12}"}] * 3, answers) == [1, 1, 0]


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("bleu", {"language": "de"}, 'needs a text under "reference"'),
        ("number", {"reference": "none"}, "has no number"),
        ("math", {"reference": "none"}, "has no final answer"),
    ],
)
def test_what_cannot_be_compared_is_named(name, row, says):
    with pytest.raises(ValueError, match=says):
        scores(name, [row], ["x"])
