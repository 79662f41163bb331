"""Tables of paired differences: two evaluations on the same items."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from marco_jax.evaluation.outcomes import outcomes_path, read_outcomes
from marco_jax.evaluation.paired_differences import Difference, paired_differences
from marco_jax.evaluation.results import ALL, AVERAGES
from marco_jax.reports.labels import language_label, title_of
from marco_jax.reports.page import Cell, cell
from marco_jax.reports.run_data import RunData, name_of
from marco_jax.reports.summary import STYLES, style_of

_log = logging.getLogger(__name__)

# A difference with a lower p-value is coloured.
SIGNIFICANT = 0.05


def run_differences(
    first: RunData, first_step: int | None, second: RunData, second_step: int | None
) -> list[Difference]:
    """The differences between evaluations of two runs, or of two steps of one.

    Empty where a run has not kept its items' outcomes, as older versions did not.
    """
    if first_step is None or second_step is None:
        return []
    paths = [
        outcomes_path(run.workdir / "eval" / f"{step}.json")
        for run, step in ((first, first_step), (second, second_step))
    ]
    if not all(path.exists() for path in paths):
        return []
    try:
        return paired_differences(*map(read_outcomes, paths))
    except ValueError as error:
        # What is damaged is left out, as all of a run's files.
        _log.warning(str(error))
        return []


def paired_table(differences: Sequence[Difference]) -> list[list[Cell]]:
    """Rows of label, both values, difference, p-value and items; a title row for each metric.

    A title row has one cell. Means come before languages.
    """
    rows: list[list[Cell]] = []
    for task, metric in dict.fromkeys((one.task, one.metric) for one in differences):
        own = [one for one in differences if (one.task, one.metric) == (task, metric)]
        style = style_of(metric, [value for one in own for value in (one.first, one.second)])
        rows.append([title_of(task, metric)])
        rows += [_row(one, style) for one in sorted(own, key=lambda d: d.language not in AVERAGES)]
    return rows


def language_cell(code: str) -> Cell:
    """The first cell of the row of a language, with its code, or of a mean over languages."""
    if code in AVERAGES:
        return "Mean" if code == ALL else f"{language_label(code)} mean"
    return cell(name_of(code), code)


def _row(one: Difference, style: str) -> list[Cell]:
    scale, digits, unit = STYLES[style]
    values = [f"{value * scale:.{digits}f}{unit}" for value in (one.first, one.second)]
    change = f"{one.difference * scale:+.{digits}f}"
    error = "" if math.isnan(one.stderr) else f"± {one.stderr * scale:.{digits}f}"
    # nan compares as False.
    clear = one.p_value < SIGNIFICANT
    kind = "" if not clear else "good" if (one.difference < 0) == (style == "relative") else "bad"
    p_value = "" if math.isnan(one.p_value) else f"{one.p_value:.4f}"
    return [language_cell(one.language), *values, cell(change, error, kind), p_value, one.items]
