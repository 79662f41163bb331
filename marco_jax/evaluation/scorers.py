"""Loads scorers, callables that rate answers, by name or as `module:function`.

A scorer takes input rows (with all their fields) and an answer to each, and returns a number per
answer: higher is better, nan means that the answer must not be used. A scorer may be a reward
model or a rule of two lines:

    def brevity(rows, answers):
        return [-len(answer) for answer in answers]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marco_jax.evaluation import metrics
from marco_jax.evaluation.answers import last_number, same_number
from marco_jax.evaluation.instructions import follows, instructions_of
from marco_jax.evaluation.math_answers import final_answer, same_answer
from marco_jax.runtime.user_code import load_callable

Row = Mapping[str, Any]
Scorer = Callable[[Sequence[Row], Sequence[str]], Sequence[float]]

LANGUAGE = "language"


def load_scorer(name: str, reference: str = "reference") -> Scorer:
    """Loads a scorer by name (a key of SCORERS) or as "module:function".

    `reference` is the field with the reference answer, for scorers that need one.

    Raises:
        ValueError: the scorer does not exist.
    """
    if name in SCORERS:
        return functools.partial(SCORERS[name], reference=reference)
    if ":" not in name:
        raise ValueError(
            f"scorer {name!r} is unknown: known are {', '.join(SCORERS)}, and module:function"
        )
    return load_callable(name)


def score_answers(scorer: Scorer, rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """Scores answers and checks what the scorer returns.

    Raises:
        ValueError: the scorer fails, or does not return one number per answer.
    """
    return numbers("scorer", scorer, rows, answers)


def numbers(role: str, function: Callable[..., Sequence[float]], *lists: Sequence) -> list[float]:
    """Calls a user's function on lists of equal length; checks that it returns a number for each.

    Raises:
        ValueError: the function fails or returns something else; the message calls it `role`.
    """
    try:
        found = function(*lists)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"the {role} fails: {type(error).__name__}: {error}") from error
    try:
        values = [float(value) for value in found]
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {role} does not return a list of numbers: {error}") from None
    if len(values) != len(lists[0]):
        raise ValueError(f"the {role} returns {len(values)} numbers for {len(lists[0])} answers")
    return values


def _text_of(row: Row, field: str, scorer: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value:
        raise ValueError(
            f'scorer {scorer!r} needs a text under "{field}" in every row: a row has only '
            f"{', '.join(sorted(row))}"
        )
    return value


def _chrf(
    rows: Sequence[Row], answers: Sequence[str], reference: str, *, name: str, word_order: int
) -> list[float]:
    """Sacrebleu's sentence chrF or chrF++ (0 to 100) against the field `reference`."""
    references = [_text_of(row, reference, name) for row in rows]
    scorer = metrics.chrf_scorer(word_order)
    return [
        scorer.sentence_score(answer.strip(), [text.strip()]).score
        for answer, text in zip(answers, references, strict=True)
    ]


def _bleu(rows: Sequence[Row], answers: Sequence[str], reference: str) -> list[float]:
    """Sacrebleu's sentence BLEU (0 to 100, smoothed), tokenised as for the row's "language"."""
    references = [_text_of(row, reference, "bleu") for row in rows]
    return [
        metrics.sentence_bleu(answer, text, str(row.get(LANGUAGE) or ""))
        for row, answer, text in zip(rows, answers, references, strict=True)
    ]


def _number(rows: Sequence[Row], answers: Sequence[str], reference: str) -> list[float]:
    """1 for an answer whose last number is that of the reference, as MGSM is scored, else 0."""
    references = [_text_of(row, reference, "number") for row in rows]
    for text in references:
        if not any(character.isdigit() for character in text):
            raise ValueError(f"scorer 'number': the {reference} {text!r} has no number")
    pairs = zip(answers, references, strict=True)
    return [same_number(last_number(answer), [last_number(right)]) for answer, right in pairs]


def _math(rows: Sequence[Row], answers: Sequence[str], reference: str) -> list[float]:
    """1 for an answer that ends with the reference's LaTeX answer after normalisation, else 0."""
    references = [_text_of(row, reference, "math") for row in rows]
    for text in references:
        if final_answer(text) is None:
            raise ValueError(f"scorer 'math': the {reference} {text!r} has no final answer")
    pairs = zip(answers, references, strict=True)
    return [float(same_answer(answer, right)) for answer, right in pairs]


def _language(rows: Sequence[Row], answers: Sequence[str], reference: str) -> list[float]:
    """1 for an answer in the row's "language", else 0."""
    codes = [_text_of(row, LANGUAGE, LANGUAGE) for row in rows]
    pairs = zip(answers, codes, strict=True)
    return [float(metrics.is_in_language(answer, code)) for answer, code in pairs]


def _instructions(rows: Sequence[Row], answers: Sequence[str], reference: str) -> list[float]:
    """Share of a row's instructions (Marco-Bench-MIF fields) that are followed."""
    found = []
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True), 1):
        asked = instructions_of(row, f"row {number}")
        found.append(sum(follows(one, answer) for one in asked) / len(asked))
    return found


# Scorers by name; each also takes the name of the field with the reference answer.
SCORERS: Mapping[str, Callable[[Sequence[Row], Sequence[str], str], Sequence[float]]] = {
    "chrf": functools.partial(_chrf, name="chrf", word_order=0),
    "chrf++": functools.partial(_chrf, name="chrf++", word_order=2),
    "bleu": _bleu,
    "number": _number,
    "math": _math,
    "language": _language,
    "instructions": _instructions,
}
