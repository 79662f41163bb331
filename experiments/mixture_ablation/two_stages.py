"""Do two stages of continual pretraining lift low-resource languages without forgetting?

    python -m experiments.mixture_ablation.two_stages --config=configs/mixture_ablation.py \
        --workdir=runs/two_stages --seeds=3 --config.init_from=runs/base

From one base, with the same tokens each: Marco-LLM's Stage-I and Stage-II; low-resource text alone
(naive fine-tuning); and one flat stage with the totals of both. Bits per byte by language before,
after Stage-I and at the end of each, over seeds, as a table, JSON and a page. A killed run goes on
with the same command. With --dry_run it prints the mixtures and tokens of each, and trains nothing.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.mixture_ablation.arms import Arms, command, ratios, spread
from marco_jax.files import write_text
from marco_jax.languages import low_resource
from marco_jax.reports.charts import PALETTE, axis, bars, chart
from marco_jax.reports.page import render_page
from marco_jax.reports.run_data import name_of
from marco_jax.training.config import plan_stages

STAGES, NAIVE, FLAT = "two_stages", "low_resource_only", "flat"
ARMS = {
    STAGES: {"stages": "stage1,stage2", "mixture.name": "stage1,stage2"},
    NAIVE: {"mixture.name": "flat", "mixture.override": "low-resource=1"},
    FLAT: {"mixture.name": "flat"},
}
COLUMNS = ("Stage-I", "Stage-II", "low-resource only", "flat")
# What English and Chinese may lose.
MOST_FORGOTTEN = 0.02


def compare_stages(arms: Arms) -> dict[str, Any]:
    """Changes of bits per byte from the base, by column.

    Returns:
        plain data: `before` by language, and `changes` by column and language, a seed each, as
        ratios less one.
    """
    first = plan_stages(arms.arm_config(STAGES))[0].steps
    before = arms.before()
    columns = ((STAGES, first), (STAGES, None), (NAIVE, None), (FLAT, None))
    changes = {
        column: ratios(arms.bits(arm, step), [before] * arms.seeds)
        for column, (arm, step) in zip(COLUMNS, columns, strict=True)
    }
    return {"seeds": arms.seeds, "steps": arms.config.steps, "before": before, "changes": changes}


def verdict(found: Mapping[str, Any]) -> list[str]:
    """Whether the paper's claim holds here, a line each for low-resource, English and Chinese."""
    low = [code for code in found["before"] if code in low_resource()]
    stages, lines = found["changes"]["Stage-II"], []
    if low:
        means = np.mean([stages[code] for code in low], axis=0)
        lines.append(f"low-resource mean {spread(means)}: {_word(means.mean() < 0, 'falls')}")
    for code in ("en", "zh"):
        if code in stages:
            mean = np.mean(stages[code])
            word = _word(mean <= MOST_FORGOTTEN, f"rises by {MOST_FORGOTTEN:.0%} at most")
            lines.append(f"{name_of(code)} {spread(stages[code])}: {word}")
    return lines


def _word(true: bool, claim: str) -> str:
    return claim if true else f"NOT so ({claim})"


def markdown(found: Mapping[str, Any]) -> list[str]:
    """A row a language: bits per byte before, then changes, mean and deviation over seeds."""
    lines = ["| language | before | " + " | ".join(COLUMNS) + " |", "|---" * 6 + "|"]
    for code, bits in found["before"].items():
        cells = [spread(found["changes"][column][code]) for column in COLUMNS]
        lines.append(f"| {code} | {bits:.3f} | " + " | ".join(cells) + " |")
    return lines


def _page(found: Mapping[str, Any]) -> str:
    before, changes, traces = found["before"], found["changes"], []
    for column, colour in zip(COLUMNS, PALETTE, strict=False):
        values = {name_of(code): changes[column][code] for code in before}
        means = {name: sum(seeds) / len(seeds) for name, seeds in values.items()}
        ends = {name: (min(seeds), max(seeds)) for name, seeds in values.items()}
        traces.append(bars(column, means, colour, "+.2%", ends))
    return render_page(
        pathlib.Path(__file__).with_name("two_stages.html.jinja"),
        {"changes": chart(traces, 420, {}, axis("change", "+.0%"))},
        found=found,
        verdicts=verdict(found),
        columns=list(COLUMNS),
        name_of=name_of,
        spread=spread,
    )


def _write(found: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    """Writes report.html; returns the table."""
    write_text(workdir / "report.html", _page(found))
    print(f"{workdir / 'report.html'}", file=sys.stderr)
    return [*markdown(found), "", *verdict(found)]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison and writes two_stages.json and report.html into the workdir."""
    purpose = __doc__.partition("\n")[0]
    return command("two_stages", purpose, ARMS, compare_stages, _write, argv)


if __name__ == "__main__":
    sys.exit(main())
