"""Which of two answers is the better: wins, losses and ties of a model against another.

A judge is a scorer (two arguments, rows and answers: the better of two scores wins), or a function
of three, rows, first answers and second answers, that gives a number each: above 0 where the first
is the better, below 0 where the second is, 0 for a tie:

    def longer(rows, firsts, seconds):
        return [len(first) - len(second) for first, second in zip(firsts, seconds)]

A judge that reads both answers, such as a language model, may favour the one that it reads first.
So each pair is judged in both orders, and is a win only where both judgements say so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from marco_jax.evaluation import metrics
from marco_jax.evaluation.evaluator import averages
from marco_jax.evaluation.results import Result
from marco_jax.evaluation.scorers import SCORERS, Row, Scorer, load_callable, load_scorer, numbers

Judge = Callable[[Sequence[Row], Sequence[str], Sequence[str]], Sequence[float]]

TASK = "pairwise"
# Figures of a table, the headline first: a tie counts half in win_rate; net is wins less losses;
# consistent is the share of pairs whose two judgements agree.
FIGURES = ("win_rate", "win", "loss", "tie", "net", "consistent")


class Verdict(NamedTuple):
    """What a judge says of a pair: 1 (win), 0 (tie) or -1 (loss), and whether both orders agree."""

    outcome: int
    consistent: bool


def load_judge(name: str, reference: str = "reference") -> Judge:
    """The judge of a scorer's name, or of "module:function", a scorer or a judge.

    Args:
        name: what --judge says.
        reference: the field that holds the right answer, for scorers that compare with one.

    Raises:
        ValueError: there is none, or it takes another number of arguments.
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
    """The judge for whom the higher score is the better."""

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
    """Judges each pair in both orders; a win or a loss is what both of them say.

    Args:
        judge: see above.
        rows: what was asked.
        ours: the answers whose wins are counted.
        theirs: the answers that they are compared with.
        tie_margin: judgements of at most this size are ties; nan always is one.

    Raises:
        ValueError: the judge fails, or gives something else than a number a pair.
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


def table(
    rows: Sequence[Row], verdicts: Sequence[Verdict], *, task: str = TASK, signature: str = ""
) -> list[Result]:
    """Shares of wins, losses and ties by the rows' "language", with means over languages.

    Args:
        rows: what was asked; those without a language stand under "und".
        verdicts: one a row.
        task: name in the results.
        signature: what tells how the figures came about, for the headline's rows.

    Returns:
        a row a figure and language, then all, high-resource and low-resource languages' means.
    """
    groups: dict[str, list[Verdict]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        groups.setdefault(str(row.get("language") or "und"), []).append(verdict)
    results = []
    for name in FIGURES:
        signed = signature if name == FIGURES[0] else ""
        figures = []
        for language in sorted(groups):
            value, stderr = _figure(name, groups[language])
            counts = len(groups[language])
            figures.append(Result(task, language, 0, name, value, stderr, counts, signed))
        results += figures + averages(figures)
    return results


_VALUES: Mapping[str, Callable[[Verdict], float]] = {
    "win_rate": lambda verdict: (verdict.outcome + 1) / 2,
    "win": lambda verdict: float(verdict.outcome > 0),
    "loss": lambda verdict: float(verdict.outcome < 0),
    "tie": lambda verdict: float(verdict.outcome == 0),
    "net": lambda verdict: float(verdict.outcome),
    "consistent": lambda verdict: float(verdict.consistent),
}


def _figure(name: str, verdicts: Sequence[Verdict]) -> tuple[float, float]:
    estimate = metrics.mean([_VALUES[name](verdict) for verdict in verdicts])
    return estimate.value, estimate.stderr
