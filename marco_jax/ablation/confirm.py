"""Confirms a proposal: trains it and the prior with a larger budget and several seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.stats
from ml_collections import ConfigDict

from marco_jax.ablation.analysis import Analysis
from marco_jax.ablation.proxies import Proxy, Runs
from marco_jax.ablation.run_metrics import target_values
from marco_jax.ablation.swarm import Swarm
from marco_jax.ablation.sweep_config import confirm_steps

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Change:
    """The relative change of a target from the prior to the proposal (ratio less one).

    Attributes:
        target: name of the target.
        predicted: change predicted from the proxies.
        predicted_range: its 95% interval.
        measured: measured change for each seed, [seeds].
    """

    target: str
    predicted: float
    predicted_range: tuple[float, float]
    measured: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean measured change over seeds."""
        return float(np.mean(self.measured))

    @property
    def half_width(self) -> float:
        """Half the width of the mean's 95% interval (Student's t); infinite with one seed."""
        return mean_half_width(self.measured)


def mean_half_width(values: Sequence[float]) -> float:
    """Half the width of the 95% interval of a mean (Student's t); infinite for one value."""
    if len(values) < 2:
        return float("inf")
    return float(scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values))


@dataclasses.dataclass(frozen=True)
class Confirmation:
    """Predicted and measured changes.

    Attributes:
        steps: steps of each run.
        seeds: seeds for which both runs have metrics.
        changes: changes by target, targets of the objective and the bounds first.
        measured: metrics by run and target.
    """

    steps: int
    seeds: tuple[int, ...]
    changes: tuple[Change, ...]
    measured: dict[str, dict[str, float]]

    def lines(self) -> Iterator[str]:
        """Lines of text that summarise the confirmation."""
        if not self.changes:
            yield "confirmation: no seed has metrics of both runs"
            return
        yield f"proposal against prior, {self.steps:,} steps, {len(self.seeds)} seeds"
        yield f"{'target':<40}{'predicted':>10}   {'measured':>9}"
        for change in self.changes:
            around = f" ± {change.half_width:.2%}" if np.isfinite(change.half_width) else ""
            yield f"{change.target:<40}{change.predicted:>+10.2%}   {change.mean:>+9.2%}{around}"

    def to_json(self) -> dict[str, Any]:
        """The confirmation as plain data."""
        widths = [change.half_width for change in self.changes]
        changes = [
            dataclasses.asdict(change)
            | {"mean": change.mean, "half_width": width if np.isfinite(width) else None}
            for change, width in zip(self.changes, widths, strict=True)
        ]
        return {
            "steps": self.steps,
            "seeds": list(self.seeds),
            "changes": changes,
            "metrics": {
                run: {name: value if math.isfinite(value) else None for name, value in own.items()}
                for run, own in self.measured.items()
            },
        }


def confirm(
    config: ConfigDict, swarm: Swarm, analysis: Analysis, runs: Runs
) -> tuple[int, Confirmation]:
    """Trains the prior and the proposal with several seeds, or resumes doing so.

    The runs of `runs` are replaced by those that confirm. The analysis must have a proposal.

    Returns:
        0, or 143 after a SIGTERM, and the results so far.
    """
    seeds, steps = range(config.sweep.confirm.seeds), confirm_steps(config)
    proposal, objective = analysis.proposal, analysis.objective
    overrides = {
        "prior": swarm.components.override(swarm.prior),
        "proposed": swarm.components.override(proposal.weights),
    }
    proxies = {}
    for seed, (name, override) in itertools.product(seeds, overrides.items()):
        # The digest separates runs of different proposals.
        digest = hashlib.blake2b(override.encode(), digest_size=4).hexdigest()
        changes = {
            "mixture.override": override,
            "steps": steps,
            "seed": config.seed + seed,
            "evaluation.at_start": False,
        }
        proxies[seed, name] = Proxy(f"{name}-{digest}-seed{seed}", changes)
    runs.proxies = list(proxies.values())
    code = runs.run()
    found = {key: target_values(runs.results(proxy)) for key, proxy in proxies.items()}
    whole = tuple(seed for seed in seeds if found[seed, "prior"] and found[seed, "proposed"])
    names = dict.fromkeys([*objective.targets, *objective.bounds, *proposal.ranges])
    changes = []
    for name in names:
        ratios = [
            found[n, "proposed"].get(name, math.nan) / (found[n, "prior"].get(name) or math.nan)
            for n in whole
        ]
        # A target without a usable metric in every run has no mean that others compare with.
        if ratios and all(map(math.isfinite, ratios)):
            measured = tuple(ratio - 1 for ratio in ratios)
            changes.append(Change(name, *proposal.change(name), measured))
        elif ratios:
            _log.warning(f"confirmation: {name} is left out, a run has no usable metric of it")
    measured = {proxies[key].name: values for key, values in found.items() if values}
    return code, Confirmation(steps, whole, tuple(changes), measured)
