"""Scorers: callables that rank answers, by name or as `module:function`.

A scorer takes rows (the records that were asked, with all their fields) and an answer to each, and
returns a number for each, of which the higher is the better; nan means that the answer is not to be
used. A reward model is one, and so is a rule of two lines:

    def brevity(rows, answers):
        return [-len(answer) for answer in answers]
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marco_jax.evaluation import metrics
from marco_jax.evaluation.instructions import follows, instructions_of

Row = Mapping[str, Any]
Scorer = Callable[[Sequence[Row], Sequence[str]], Sequence[float]]

LANGUAGE = "language"


def load_callable(name: str) -> Callable[..., Any]:
    """What "module:function" or "file.py:function" names; modules of this folder are found.

    Raises:
        ValueError: there is no such module, file or function.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"{name!r} names no callable: write module:function or file.py:function")
    try:
        if place.endswith(".py"):
            module = _load_file(pathlib.Path(place))
        else:
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
            module = importlib.import_module(place)
    except ImportError as error:
        raise ValueError(f"{name!r} cannot be imported: {error}") from None
    found = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{place} has no callable {attribute!r}")
    return found


def load_scorer(name: str, reference: str = "reference") -> Scorer:
    """The scorer of a name (a key of SCORERS) or of "module:function".

    Args:
        name: what --scorer says.
        reference: the field that holds the right answer, for scorers that compare with one.

    Raises:
        ValueError: there is no such scorer.
    """
    if name in SCORERS:
        return SCORERS[name](reference)
    if ":" not in name:
        raise ValueError(
            f"scorer {name!r} is unknown: known are {', '.join(SCORERS)}, and module:function"
        )
    return load_callable(name)


def score(scorer: Scorer, rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """The scores of answers, checked.

    Raises:
        ValueError: the scorer fails, or gives something else than a number an answer.
    """
    return numbers("scorer", scorer, rows, answers)


def numbers(role: str, function: Callable[..., Sequence[float]], *lists: Sequence) -> list[float]:
    """What a user's function gives for lists of equal length, checked: one number for each.

    Raises:
        ValueError: it fails, or gives something else; `role` says what it is.
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
        raise ValueError(f"the {role} gives no list of numbers: {error}") from None
    if len(values) != len(lists[0]):
        raise ValueError(f"the {role} gives {len(values)} numbers for {len(lists[0])} answers")
    return values


def _load_file(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path} is no file: --scorer and --judge name a module or a .py file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _text_of(row: Row, field: str, scorer: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value:
        raise ValueError(
            f'scorer {scorer!r} needs a text under "{field}" in every row, one has '
            f"{', '.join(sorted(row))}"
        )
    return value


def _chrf(word_order: int, name: str, reference: str) -> Scorer:
    """Sentence chrF or chrF++ (0 to 100) against the field `reference`, as sacrebleu has it."""

    def chrf(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
        right = [_text_of(row, reference, name) for row in rows]
        scorer = metrics.chrf_scorer(word_order)
        return [
            scorer.sentence_score(answer.strip(), [text.strip()]).score
            for answer, text in zip(answers, right, strict=True)
        ]

    return chrf


def _language(reference: str) -> Scorer:
    """1 for an answer in the language of the row's "language", else 0."""
    del reference

    def language(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
        codes = [_text_of(row, LANGUAGE, LANGUAGE) for row in rows]
        return [
            float(metrics.is_in_language(answer, code))
            for answer, code in zip(answers, codes, strict=True)
        ]

    return language


def _instructions(reference: str) -> Scorer:
    """Share of a row's instructions (Marco-Bench-MIF's fields) that the answer follows."""
    del reference

    def instructions(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
        found = []
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True), 1):
            asked = instructions_of(row, f"row {number}")
            found.append(sum(follows(one, answer) for one in asked) / len(asked))
        return found

    return instructions


# Scorers by name, each made for the name of the field that holds right answers.
SCORERS: Mapping[str, Callable[[str], Scorer]] = {
    "chrf": functools.partial(_chrf, 0, "chrf"),
    "chrf++": functools.partial(_chrf, 2, "chrf++"),
    "language": _language,
    "instructions": _instructions,
}
