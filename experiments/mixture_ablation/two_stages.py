"""Do two stages of continual pretraining lift low-resource languages without forgetting?

    python -m experiments.mixture_ablation.two_stages --config=configs/mixture_ablation.py \
        --workdir=runs/two_stages --seeds=3 --config.init_from=runs/base

From one base, with the same tokens each: Marco-LLM's Stage-I and Stage-II; low-resource text alone
(naive fine-tuning); and one flat stage with the totals of both. Bits per byte by language before,
after Stage-I and at the end of each, over seeds, as a table, JSON and a page. A killed run goes on
with the same command. With --dry_run it prints the mixtures and tokens of each, and trains nothing.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import parse_overrides
from marco_jax.ablation.proxies import STOPPED, Proxy, Runs
from marco_jax.ablation.run_metrics import target_values
from marco_jax.files import write_json, write_text
from marco_jax.languages import low_resource
from marco_jax.planning.dry_run import describe_run
from marco_jax.reports.charts import PALETTE, axis, bars, chart
from marco_jax.reports.page import render_page
from marco_jax.reports.run_data import name_of
from marco_jax.runtime.compilation_cache import enable_compilation_cache
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.lock import locked
from marco_jax.runtime.logs import configure_logging
from marco_jax.training.config import load_config, plan_stages
from marco_jax.training.loop import train

STAGES, NAIVE, FLAT = "two_stages", "low_resource_only", "flat"
ARMS = {
    STAGES: {"stages": "stage1,stage2", "mixture.name": "stage1,stage2"},
    NAIVE: {"mixture.name": "flat", "mixture.override": "low-resource=1"},
    FLAT: {"mixture.name": "flat"},
}
COLUMNS = ("Stage-I", "Stage-II", "low-resource only", "flat")
# What English and Chinese may lose.
MOST_FORGOTTEN = 0.02
_BITS = "bits_per_byte/bits_per_byte/"


def compare(config: ConfigDict, workdir: pathlib.Path, seeds: int) -> dict[str, object] | None:
    """Trains all arms with so many seeds; None where a SIGTERM has ended it.

    Returns:
        plain data: `before` by language, and `changes` by column and language, a seed each, as
        ratios less one.

    Raises:
        RunFailed: an arm has no metrics.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if not config.data_cache:
        config.data_cache = str(workdir / "data")
    proxies = _arms(config, seeds)
    runs = Runs(workdir / "runs", config, list(proxies.values()), train)
    with locked(workdir):
        if runs.run() == STOPPED:
            return None
    first = plan_stages(proxies[STAGES, 0].config(config))[0].steps
    before = _bits(runs, proxies[STAGES, 0], 0)
    columns = ((STAGES, first), (STAGES, None), (NAIVE, None), (FLAT, None))
    measured = {
        column: [_bits(runs, proxies[arm, number], step) for number in range(seeds)]
        for column, (arm, step) in zip(COLUMNS, columns, strict=True)
    }
    if not before or not all(all(found) for found in measured.values()):
        failed = "; ".join(runs.table())
        raise RunFailed(f"not every run has metrics ({failed}): the same command tries again")
    changes = {
        column: {code: [values[code] / before[code] - 1 for values in found] for code in before}
        for column, found in measured.items()
    }
    return {"seeds": seeds, "steps": config.steps, "before": before, "changes": changes}


def _arms(config: ConfigDict, seeds: int) -> dict[tuple[str, int], Proxy]:
    """The runs by arm and number of the seed."""
    found = {}
    for number, (arm, changes) in itertools.product(range(seeds), ARMS.items()):
        # All arms share the base: its metrics are read once.
        first = (arm, number) == (STAGES, 0)
        own = {**changes, "seed": config.seed + number, "evaluation.at_start": first}
        found[arm, number] = Proxy(f"{arm}-seed{number}", own)
    return found


def describe(config: ConfigDict, workdir: pathlib.Path, seeds: int) -> Iterator[str]:
    """Checks all arms and yields a description of each: steps, tokens and mixtures by stage.

    Raises:
        ValueError, OSError: as `compare`, of the config and the data.
    """
    arms = _arms(config, 1)
    yield f"{len(arms)} arms with {seeds} seeds each: {len(arms) * seeds} runs"
    for (arm, _), proxy in arms.items():
        run = describe_run(proxy.config(config), str(workdir / "runs" / proxy.name))
        yield f"\n## {arm}\n\n{run}"


def _bits(runs: Runs, proxy: Proxy, step: int | None) -> dict[str, float]:
    """Bits per byte by language after a step of a run."""
    found = target_values(runs.results(proxy, step)).items()
    bits = {name.removeprefix(_BITS): value for name, value in found if name.startswith(_BITS)}
    return {code: value for code, value in bits.items() if code not in ("all", "high", "low")}


def verdict(found: Mapping[str, object]) -> list[str]:
    """Whether the paper's claim holds here, a line each for low-resource, English and Chinese."""
    low = [code for code in found["before"] if code in low_resource()]
    stages, lines = found["changes"]["Stage-II"], []
    if low:
        means = np.mean([stages[code] for code in low], axis=0)
        lines.append(f"low-resource mean {_spread(means)}: {_word(means.mean() < 0, 'falls')}")
    for code in ("en", "zh"):
        if code in stages:
            mean = np.mean(stages[code])
            word = _word(mean <= MOST_FORGOTTEN, f"rises by {MOST_FORGOTTEN:.0%} at most")
            lines.append(f"{name_of(code)} {_spread(stages[code])}: {word}")
    return lines


def _word(true: bool, claim: str) -> str:
    return claim if true else f"NOT so ({claim})"


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    around = f" ± {np.std(values, ddof=1):.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):+.1%}{around}"


def markdown(found: Mapping[str, object]) -> list[str]:
    """A row a language: bits per byte before, then changes, mean and deviation over seeds."""
    lines = ["| language | before | " + " | ".join(COLUMNS) + " |", "|---" * 6 + "|"]
    for code, bits in found["before"].items():
        cells = [_spread(found["changes"][column][code]) for column in COLUMNS]
        lines.append(f"| {code} | {bits:.3f} | " + " | ".join(cells) + " |")
    return lines


def _page(found: Mapping[str, object]) -> str:
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
        spread=_spread,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison and writes two_stages.json and report.html into the workdir."""
    configure_logging()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry_run", action="store_true", help="print the arms, train nothing")
    arguments, overrides = parse_overrides(parser, argv)
    enable_compilation_cache()
    workdir = pathlib.Path(arguments.workdir)
    try:
        config = load_config(arguments.config, overrides)
        if arguments.dry_run:
            print("\n".join(describe(config, workdir, arguments.seeds)))
            return 0
        found = compare(config, workdir, arguments.seeds)
    except (ValueError, OSError, RunFailed) as error:
        print(f"two_stages: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, RunFailed) else 2
    if found is None:
        return STOPPED
    write_json(workdir / "two_stages.json", found)
    write_text(workdir / "report.html", _page(found))
    print("\n".join([*markdown(found), "", *verdict(found)]))
    print(f"{workdir / 'report.html'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
