"""Confirms a proposal: trains it and the prior with a larger budget and several seeds."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.stats
from ml_collections import ConfigDict

from marco_jax.ablation.analysis import Analysis
from marco_jax.ablation.proxies import Proxy, Runs, target_values
from marco_jax.ablation.swarm import Swarm


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
        count = len(self.measured)
        if count < 2:
            return float("inf")
        spread = float(np.std(self.measured, ddof=1)) / np.sqrt(count)
        return float(scipy.stats.t.ppf(0.975, count - 1)) * spread


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
        changes = [
            dataclasses.asdict(change)
            | {
                "mean": change.mean,
                "half_width": change.half_width if np.isfinite(change.half_width) else None,
            }
            for change in self.changes
        ]
        return {
            "steps": self.steps,
            "seeds": list(self.seeds),
            "changes": changes,
            "metrics": self.measured,
        }


def confirm(
    config: ConfigDict, swarm: Swarm, analysis: Analysis, runs: Runs
) -> tuple[int, Confirmation]:
    """Trains the prior and the proposal with several seeds, or resumes doing so.

    Args:
        config: the sweep's config.
        swarm: the sweep's runs.
        analysis: an analysis with a proposal.
        runs: the confirmation's directory; its `proxies` are replaced by the runs to confirm.

    Returns:
        0, or 143 after a SIGTERM, and the results so far.
    """
    fields = config.sweep.confirm
    steps = fields.steps or 2 * config.steps
    overrides = {
        "prior": swarm.components.override(swarm.prior),
        "proposed": swarm.components.override(analysis.proposal.weights),
    }
    pairs = []
    for number in range(fields.seeds):
        # The digest separates runs of different proposals.
        pairs.append(
            tuple(
                Proxy(
                    f"{name}-{_short_digest(override)}-seed{number}",
                    {
                        "mixture.override": override,
                        "steps": steps,
                        "seed": config.seed + number,
                        "evaluation.at_start": False,
                    },
                )
                for name, override in overrides.items()
            )
        )
    runs.proxies = [proxy for pair in pairs for proxy in pair]
    code = runs.run()
    found = [tuple(target_values(runs.results(proxy)) for proxy in pair) for pair in pairs]
    whole = [number for number, pair in enumerate(found) if all(pair)]
    measured = {p.name: f for pair, own in zip(pairs, found, strict=True)
               for p, f in zip(pair, own, strict=True) if f}  # fmt: skip
    first = {**analysis.objective.targets, **analysis.objective.bounds}
    names = [*first, *(name for name in analysis.fits if name not in first)] if whole else []
    proposal = analysis.proposal
    changes = tuple(
        Change(
            name,
            proposal.predicted[name] / proposal.before[name] - 1,
            tuple(end - 1 for end in proposal.ranges[name]),
            tuple(found[number][1][name] / found[number][0][name] - 1 for number in whole),
        )
        for name in names
        if name in proposal.ranges
    )
    return code, Confirmation(steps, tuple(whole), changes, measured)


def _short_digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
