"""Analyses the runs of a sweep: one fit per target, a proposed mixture and a trade-off curve."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from marco_jax.ablation.fit import Fit, fit_target
from marco_jax.ablation.propose import Objective, Proposal, propose, trade_off
from marco_jax.ablation.proxies import Runs, target_values
from marco_jax.ablation.swarm import Swarm
from marco_jax.ablation.sweep_config import FITS, confirm_steps, parse_shares, resolve_targets
from marco_jax.ablation.trees import TreeFit, fit_trees, propose_by_search
from marco_jax.files import write_json, write_text
from marco_jax.languages import LANGUAGES, names_in
from marco_jax.training.config import ConfigError

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
    """

    swarm: Swarm
    measured: dict[str, dict[str, float]]
    start: dict[str, float]
    fits: dict[str, Fit | TreeFit]
    objective: Objective
    proposal: Proposal
    curve: list[tuple[float, np.ndarray]]

    def lines(self, config: ConfigDict, source: str) -> Iterator[str]:
        """Lines of text that summarise the analysis."""
        width = max(len(name) for name in self.fits)
        yield f"{'target':<{width}}  rank correlation  error, left out   of the mean"
        for name, fit in self.fits.items():
            q, note = fit.quality, "" if fit.quality.predicts() else "  no better than the mean"
            yield (
                f"{name:<{width}}  {q.rank_correlation:>16.3f}  {q.error:>15.4f}"
                f"  {q.error_of_mean:>12.4f}{note}"
            )
        found = self.proposal
        for name in found.left_out:
            yield f"{name} is left out of the objective: its fit predicts nothing"
        for name in self.unsure:
            yield f"warning: the fit behind the bound on {name} does not beat the mean"
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
        yield f"ready to run: {self.command(config, source)}"

    @property
    def unsure(self) -> list[str]:
        """Bounds whose fits predict nothing: only a run can show whether they hold."""
        return [name for name in self.objective.bounds if not self.fits[name].quality.predicts()]

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

        def by_component(row: np.ndarray | None) -> dict[str, float] | None:
            return None if row is None else dict(zip(components, row.tolist(), strict=True))

        return {
            "runs": runs,
            "fits": {
                name: {
                    **dataclasses.asdict(fit.quality),
                    "predicts": fit.quality.predicts(),
                    "left_out": dict(zip(runs, fit.quality.left_out.tolist(), strict=True)),
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
                    "changes": {
                        name: float(fit.predict(row) / fit.predict(self.swarm.prior) - 1)
                        for name, fit in self.fits.items()
                    },
                }
                for rise, row in self.curve
            ],
            "start": self.start,
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
        targets = list(next(iter(self.measured.values())))
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
    """
    fields = config.sweep
    measured = {p.name: target_values(runs.results(p)) for p in swarm.proxies if runs.results(p)}
    start = target_values(runs.results(swarm.proxies[0], 0))
    rows = [n for n, name in enumerate(swarm.design.names) if name in measured]
    done = [measured[swarm.design.names[n]] for n in rows]
    names = _targets(fields.targets, done)
    targets = parse_shares(fields.objective, "sweep.objective", 1.0)
    bounds = parse_shares(fields.bounds, "sweep.bounds")
    objective = Objective(
        resolve_targets(targets, names, "sweep.objective"),
        resolve_targets(bounds, names, "sweep.bounds"),
        fields.closeness,
        tuple(swarm.caps.tolist()),
    )
    weights = swarm.design.weights[rows]
    fits = {name: _FITS[fields.fit](weights, np.array([f[name] for f in done])) for name in names}
    curve = []
    if fields.fit == "log-linear":
        proposal = propose(fits, swarm.prior, objective, draws=fields.draws)
        if objective.bounds and proposal.weights is not None:
            first = next(iter(objective.bounds))
            curve = trade_off(fits, swarm.prior, objective, first)
    else:
        proposal = propose_by_search(fits, swarm.prior, objective)
    return Analysis(swarm, measured, start, fits, objective, proposal, curve)


def _targets(text: str, done: list[dict[str, float]]) -> list[str]:
    """Targets of the tasks in `sweep.targets`, in the languages that every run has."""
    everywhere = [name for name in done[0] if all(name in run for run in done)]
    found = []
    for item in names_in(text):
        task, _, metric = item.partition("/")
        matching = [
            name
            for name in everywhere
            if name.split("/")[0] == task
            and (not metric or name.split("/")[1] == metric)
            and name.rpartition("/")[2] in LANGUAGES
        ]
        if not matching:
            known = sorted({name.rpartition("/")[0] for name in everywhere})
            raise ConfigError(f"sweep.targets: no run has {item!r}; there are {', '.join(known)}")
        # Without a metric, take the first one of the task, its main metric.
        main = matching[0].rpartition("/")[0]
        found += [name for name in matching if name.rpartition("/")[0] == main]
    return found
