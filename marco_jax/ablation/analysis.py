"""Analyses the runs of a sweep: one fit per target, a proposed mixture and a trade-off curve."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import pathlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from marco_jax.ablation.fit import Fit, fit_target
from marco_jax.ablation.propose import Objective, Proposal, propose, trade_off
from marco_jax.ablation.proxies import Runs
from marco_jax.ablation.run_metrics import Series, find_targets, target_values, usable_series
from marco_jax.ablation.swarm import Swarm
from marco_jax.ablation.sweep_config import FITS, confirm_steps, parse_shares, resolve_targets
from marco_jax.ablation.trees import TreeFit, fit_trees, propose_by_search
from marco_jax.files import write_json, write_text
from marco_jax.runtime.errors import RunFailed

_FITS = dict(zip(FITS, (fit_target, fit_trees), strict=True))


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Measured metrics, fits and the proposal.

    Attributes:
        swarm: the runs.
        measured: by run and target, the metrics of all runs that have any.
        start: metrics of the base by target.
        fits: fits by target.
        objective: the objective, with weights and bounds by target.
        proposal: the proposed mixture.
        curve: (allowed rise of the first bound, weights) pairs.
        runs: names of the runs behind each fit, by target.
        faults: a line for each metric that is left out of a fit.
    """

    swarm: Swarm
    measured: dict[str, dict[str, float]]
    start: dict[str, float]
    fits: dict[str, Fit | TreeFit]
    objective: Objective
    proposal: Proposal
    curve: list[tuple[float, np.ndarray]]
    runs: dict[str, tuple[str, ...]]
    faults: list[str]

    def lines(self, config: ConfigDict, source: str) -> Iterator[str]:
        """Lines of text that summarise the analysis."""
        width = max(len(name) for name in self.fits)
        yield f"{'target':<{width}}  rank correlation  error, left out   of the mean"
        for name, fit in self.fits.items():
            q = fit.quality
            yield (
                f"{name:<{width}}  {q.rank_correlation:>16.3f}  {q.error:>15.4f}"
                f"  {q.error_of_mean:>12.4f}"
            )
        yield from self.faults
        found = self.proposal
        for name in self.fits:
            if failure := self.failure(name):
                kind = "left out of the objective: " if name in found.left_out else ""
                kind = "warning, bounded by this fit: " if name in self.objective.bounds else kind
                yield f"{name}: {kind}{failure}"
        if found.weights is None:
            yield f"no proposal: {found.reason}"
            return
        yield f"{'component':<24}{'prior':>9}{'proposed':>10}   95% interval"
        rows = zip(self.swarm.prior, found.weights, found.low, found.high, strict=True)
        for component, row in zip(self.swarm.components.members, rows, strict=True):
            prior, weight, low, high = row
            yield f"{component:<24}{prior:>9.2%}{weight:>10.2%}   {low:.2%} to {high:.2%}"
        for name in {**self.objective.targets, **self.objective.bounds}:
            change, (low, high) = found.change(name)
            yield f"{name}: predicted {change:+.2%} ({low:+.2%} to {high:+.2%})"
        yield from self._bound_lines()
        yield f"ready to run: {self.command(config, source)}"

    def _bound_lines(self) -> Iterator[str]:
        """The probability that each bound breaks, and what kind of bounds they are."""
        for name, rise in self.objective.bounds.items():
            yield (
                f"bound {rise:+.2%} on {name}: broken with a probability of "
                f"{self.proposal.breaks[name]:.1%}"
            )
        if self.objective.bounds and self.posterior:
            yield (
                "all bounds hold together with a probability of "
                f"{self.objective.quantile:.0%} or more (sweep.bound_quantile)"
            )
        elif self.objective.bounds:
            yield (
                "bounds are on the estimates of sweep.fit='lightgbm', whose refits are too few for "
                "sweep.bound_quantile: probabilities above are shares of its bootstrap"
            )

    @property
    def posterior(self) -> bool:
        """Whether the fits have posterior draws, so that bounds hold with a probability."""
        return all(isinstance(fit, Fit) for fit in self.fits.values())

    def failure(self, name: str) -> str:
        """Which test the fit of a target fails; "" if none."""
        count = len(self.objective.targets) if name in self.objective.targets else 1
        return self.fits[name].quality.failure(count)

    def command(self, config: ConfigDict, source: str) -> str:
        """The command that trains on the proposal, with the base and steps of the confirmation."""
        fields = {
            "data": config.data,
            "init_from": config.init_from,
            "mixture.name": config.mixture.name,
            "mixture.override": self.swarm.components.override(self.proposal.weights),
            "steps": confirm_steps(config),
        }
        given = shlex.join(f"--config.{name}={value}" for name, value in fields.items() if value)
        return f"marco train --config={source} --workdir=runs/proposed {given}"

    def to_json(self) -> dict[str, Any]:
        """Fits, proposal and trade-off as plain data."""
        components, found = list(self.swarm.components.members), self.proposal
        runs = [name for name in self.swarm.design.names if name in self.measured]
        start = {name: value for name, value in self.start.items() if math.isfinite(value)}

        def by_component(row: np.ndarray | None) -> dict[str, float] | None:
            return None if row is None else dict(zip(components, row.tolist(), strict=True))

        return {
            "runs": runs,
            "faults": self.faults,
            "bounds_on": "quantile" if self.posterior else "estimate",
            "fits": {
                name: {
                    **dataclasses.asdict(fit.quality),
                    "predicts": not self.failure(name),
                    "failure": self.failure(name),
                    "left_out": dict(
                        zip(self.runs[name], fit.quality.left_out.tolist(), strict=True)
                    ),
                    "effects": self._effects(fit),
                }
                for name, fit in self.fits.items()
            },
            "objective": dataclasses.asdict(self.objective),
            "prior": by_component(self.swarm.prior),
            "proposal": {
                **dataclasses.asdict(found),
                **{name: by_component(getattr(found, name)) for name in ("weights", "low", "high")},
                "override": None
                if found.weights is None
                else self.swarm.components.override(found.weights),
            },
            "trade_off": [
                {
                    "rise": rise,
                    "weights": by_component(row),
                    "override": self.swarm.components.override(row),
                    "changes": {
                        name: float(fit.predict(row) / fit.predict(self.swarm.prior) - 1)
                        for name, fit in self.fits.items()
                    },
                }
                for rise, row in self.curve
            ],
            "start": start,
        }

    def _effects(self, fit: Fit | TreeFit) -> dict[str, list[float]] | None:
        """By component: the effect of one percentage point more, in per cent, with its interval."""
        if not isinstance(fit, Fit):
            return None
        columns = fit.effects(self.swarm.prior).T.tolist()
        return dict(zip(self.swarm.components.members, columns, strict=True))

    def write(self, directory: pathlib.Path) -> None:
        """Writes analysis.json, and runs.csv with the weights and metrics of each run."""
        write_json(directory / "analysis.json", self.to_json())
        components = list(self.swarm.components.members)
        weights = dict(zip(self.swarm.design.names, self.swarm.design.weights, strict=True))
        targets = list(dict.fromkeys(name for run in self.measured.values() for name in run))
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(["run", *(f"weight/{component}" for component in components), *targets])
        for name, measured in self.measured.items():
            row = weights.get(name, [""] * len(components))
            table.writerow([name, *row, *(measured.get(target, "") for target in targets)])
        write_text(directory / "runs.csv", text.getvalue())


def analyse(config: ConfigDict, swarm: Swarm, runs: Runs) -> Analysis:
    """Fits the metrics of all runs that have any, and proposes a mixture.

    Raises:
        ConfigError: a field of the fit names an unknown target.
        RunFailed: too few runs have usable metrics of all targets, of the whole objective or of a
            bounded target.
    """
    fields = config.sweep
    results = {p.name: runs.results(p) for p in swarm.proxies if runs.results(p)}
    measured = {name: target_values(rows) for name, rows in results.items()}
    start = target_values(runs.results(swarm.proxies[0], 0))
    results = {name: results[name] for name in swarm.design.names if name in results}
    found = find_targets(fields.targets, [measured[name] for name in results])
    series, faults = usable_series(found, results)
    if not series:
        raise RunFailed("; ".join(faults))
    objective = _objective(config, swarm, found, series, faults)
    weights = dict(zip(swarm.design.names, swarm.design.weights, strict=True))
    fits = {
        name: _FITS[fields.fit](np.array([weights[run] for run in s.runs]), s.values, s.errors)
        for name, s in series.items()
    }
    curve = []
    if fields.fit == "log-linear":
        proposal = propose(fits, swarm.prior, objective, draws=fields.draws)
        if objective.bounds and proposal.weights is not None:
            first = next(iter(objective.bounds))
            curve = trade_off(fits, swarm.prior, objective, first)
    else:
        proposal = propose_by_search(fits, swarm.prior, objective)
    used = {name: s.runs for name, s in series.items()}
    return Analysis(swarm, measured, start, fits, objective, proposal, curve, used, faults)


def _objective(
    config: ConfigDict,
    swarm: Swarm,
    targets: list[str],
    series: Mapping[str, Series],
    faults: list[str],
) -> Objective:
    """The objective over targets that have a series; names mean targets of `targets`."""
    fields = config.sweep
    shares = parse_shares(fields.objective, "sweep.objective", 1.0)
    wanted = resolve_targets(shares, targets, "sweep.objective")
    bounds = resolve_targets(parse_shares(fields.bounds, "sweep.bounds"), targets, "sweep.bounds")
    usable = {name: share for name, share in wanted.items() if name in series}
    # A bound that cannot be kept is not dropped in silence.
    lost = [name for name in bounds if name not in series]
    if not usable or lost:
        field, names = ("sweep.bounds", lost) if lost else ("sweep.objective", list(wanted))
        raise RunFailed(
            f"{field}: {', '.join(names)} cannot be fitted; leave it out, or train the runs again "
            f"({'; '.join(faults)})"
        )
    caps = tuple(swarm.caps.tolist())
    return Objective(usable, bounds, fields.closeness, caps, fields.bound_quantile)
