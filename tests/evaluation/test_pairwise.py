"""Wins, losses and ties: what both orders of a pair agree on."""

import math

import pytest

from marco_jax.evaluation.pairwise import Verdict, by_score, judge_pairs, load_judge, outcome_table

ROWS = [{"language": code} for code in ("kk", "kk", "de", "de")]


def longer(rows, firsts, seconds):
    return [len(first) - len(second) for first, second in zip(firsts, seconds, strict=True)]


def favours_the_first(rows, firsts, seconds):
    return [1.0] * len(rows)


def test_what_both_orders_say_counts():
    ours, theirs = ["aa", "a", "b", "bbbb"], ["a", "aa", "b", "b"]
    verdicts = judge_pairs(longer, ROWS, ours, theirs)
    assert verdicts == [Verdict(1, True), Verdict(-1, True), Verdict(0, True), Verdict(1, True)]
    # Swapping the models turns the table.
    swapped = judge_pairs(longer, ROWS, theirs, ours)
    assert [one.outcome for one in swapped] == [-one.outcome for one in verdicts]
    wide = judge_pairs(longer, ROWS, ours, theirs, tie_margin=1)
    assert [one.outcome for one in wide] == [0, 0, 0, 1]


def test_a_judge_that_favours_a_position_favours_nobody():
    verdicts = judge_pairs(favours_the_first, ROWS, ["a"] * 4, ["b"] * 4)
    assert verdicts == [Verdict(0, False)] * 4
    values = {(row.metric, row.language): row.value for row in outcome_table(ROWS, verdicts)}
    assert values["tie", "all"] == 1
    assert values["consistent", "all"] == 0
    assert values["win_rate", "all"] == 0.5


def test_no_number_is_a_tie():
    verdicts = judge_pairs(lambda *lists: [math.nan] * 4, ROWS, ["a"] * 4, ["b"] * 4)
    assert [one.outcome for one in verdicts] == [0] * 4


def test_the_table_has_languages_groups_and_errors():
    outcomes = (1, 0, 1, -1)
    rows = outcome_table(ROWS, [Verdict(outcome, True) for outcome in outcomes], signature="by:me")
    values = {(row.metric, row.language): row for row in rows}
    assert {row.language for row in rows} == {"kk", "de", "all", "high", "low"}
    assert values["win", "kk"].value == 0.5
    assert values["loss", "de"].value == 0.5
    assert values["tie", "kk"].value == 0.5
    assert values["net", "all"].value == pytest.approx(0.25)
    assert values["win_rate", "low"].value == values["win_rate", "kk"].value == 0.75
    # Two observations of 1 and 0.5: deviation 0.3536, over the root of two.
    assert values["win_rate", "kk"].stderr == pytest.approx(0.25)
    assert values["win_rate", "all"].examples == 4
    assert values["win_rate", "kk"].signature == "by:me"


def test_a_scorer_is_a_judge():
    judge = by_score(lambda rows, answers: [len(answer) for answer in answers])
    assert judge(ROWS[:1], ["abc"], ["a"]) == [2]
    judge = load_judge("chrf", "right")
    assert judge([{"right": "abcdef"}], ["abcdef"], ["xyz"])[0] > 50


def test_judges_by_the_number_of_their_arguments(tmp_path):
    (tmp_path / "judges.py").write_text(
        "def score(rows, answers, scale=1):\n    return [scale * len(a) for a in answers]\n"
        "def judge(rows, firsts, seconds):\n    return [0] * len(rows)\n"
        "def other(rows):\n    return []\n"
    )
    path = f"{tmp_path}/judges.py"
    assert load_judge(f"{path}:score")(ROWS[:1], ["ab"], ["a"]) == [1]
    assert load_judge(f"{path}:judge")(ROWS[:1], ["ab"], ["a"]) == [0]
    with pytest.raises(ValueError, match="takes 1 arguments"):
        load_judge(f"{path}:other")
    with pytest.raises(ValueError, match="returns 0 numbers for 1"):
        judge_pairs(lambda *lists: [], ROWS[:1], ["a"], ["b"])
