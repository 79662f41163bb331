"""Compares the answers of two models in pairs: wins, losses and ties.

A judge is a scorer (rows, answers), whose higher score wins, or a function of rows, first answers
and second answers that returns a number per pair: positive if the first answer is better, negative
if the second is, 0 for a tie:

    def longer(rows, firsts, seconds):
        return [len(first) - len(second) for first, second in zip(firsts, seconds)]

A judge that reads both answers, such as a language model, may favour the one that it reads first.
So each pair is judged in both orders, and only counts as a win if both judgements agree.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from marco_jax.evaluation import metrics
from marco_jax.evaluation.result_rows import averages
from marco_jax.evaluation.results import Result
from marco_jax.evaluation.scorers import SCORERS, Row, Scorer, load_scorer, numbers
from marco_jax.runtime.user_code import load_callable

Judge = Callable[[Sequence[Row], Sequence[str], Sequence[str]], Sequence[float]]

TASK = "pairwise"


class Verdict(NamedTuple):
    """The outcome of a pair: 1 (win), 0 (tie) or -1 (loss), and whether both orders agree."""

    outcome: int
    consistent: bool


# Metrics by name, the main one first, as the mean of a number per verdict: a tie counts half in
# win_rate; net is wins less losses; consistent is the share of pairs whose two judgements agree.
METRICS: Mapping[str, Callable[[Verdict], float]] = {
    "win_rate": lambda verdict: (verdict.outcome + 1) / 2,
    "win": lambda verdict: float(verdict.outcome > 0),
    "loss": lambda verdict: float(verdict.outcome < 0),
    "tie": lambda verdict: float(verdict.outcome == 0),
    "net": lambda verdict: float(verdict.outcome),
    "consistent": lambda verdict: float(verdict.consistent),
}


def load_judge(name: str, reference: str = "reference") -> Judge:
    """Loads a judge: a named scorer, or a scorer or judge as "module:function".

    `reference` is the field with the reference answer, for scorers that need one.

    Raises:
        ValueError: the judge does not exist, or takes another number of arguments.
    """
    if name in SCORERS or ":" not in name:
        return by_score(load_scorer(name, reference))
    function = load_callable(name)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    required = [one for one in parameters if one.default is one.empty and one.kind in _BY_POSITION]
    if len(required) == 2:
        return by_score(function)
    if len(required) == 3:
        return function
    raise ValueError(
        f"{name} takes {len(required)} arguments: a scorer takes two (rows, answers), a judge "
        "three (rows, firsts, seconds)"
    )


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def by_score(scorer: Scorer) -> Judge:
    """Makes a judge of a scorer: the answer with the higher score wins."""

    def judge(rows: Sequence[Row], firsts: Sequence[str], seconds: Sequence[str]) -> list[float]:
        scores = numbers("judge", scorer, [*rows, *rows], [*firsts, *seconds])
        pairs = zip(scores[: len(rows)], scores[len(rows) :], strict=True)
        return [first - second for first, second in pairs]

    return judge


def judge_pairs(
    judge: Judge,
    rows: Sequence[Row],
    ours: Sequence[str],
    theirs: Sequence[str],
    *,
    tie_margin: float = 0.0,
) -> list[Verdict]:
    """Judges each pair in both orders; judgements that disagree are a tie.

    Wins of `ours` are counted. Judgements of at most `tie_margin` are ties; nan always is a tie.

    Raises:
        ValueError: the judge fails, or does not return one number per pair.
    """
    forward = numbers("judge", judge, rows, ours, theirs)
    backward = numbers("judge", judge, rows, theirs, ours)
    verdicts = []
    for first, second in zip(forward, backward, strict=True):
        one, other = _sign(first, tie_margin), -_sign(second, tie_margin)
        verdicts.append(Verdict(one if one == other else 0, one == other))
    return verdicts


def _sign(value: float, margin: float) -> int:
    return int(value > margin) - int(value < -margin)


def outcome_table(
    rows: Sequence[Row], verdicts: Sequence[Verdict], *, task: str = TASK, signature: str = ""
) -> list[Result]:
    """Shares of wins, losses and ties by the rows' "language", with means over languages.

    Rows without a language count as "und". `signature` describes the judge, for the rows of the
    main metric. Each metric has a row per language, then means over all, high- and low-resource
    languages.
    """
    groups: dict[str, list[Verdict]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        groups.setdefault(str(row.get("language") or "und"), []).append(verdict)
    results = []
    for name, number in METRICS.items():
        metric_rows = []
        for language, own in sorted(groups.items()):
            mean = metrics.mean([number(verdict) for verdict in own])
            metric_rows.append(
                Result(task, language, 0, name, mean.value, mean.stderr, len(own), signature)
            )
        signature = ""
        results += metric_rows + averages(metric_rows)
    return results
