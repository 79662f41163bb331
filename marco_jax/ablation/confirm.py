"""The proposal against the prior, at a larger budget and with several seeds."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.stats
from ml_collections import ConfigDict

from marco_jax.ablation.analysis import Analysis
from marco_jax.ablation.proxies import Proxy, Runs, figures_of
from marco_jax.ablation.swarm import Swarm


@dataclasses.dataclass(frozen=True)
class Change:
    """A target under the proposal, against the prior; all as ratios less one.

    Attributes:
        target: its name.
        predicted: with `predicted_range`, its 95% interval, from the proxies.
        measured: with the same seed each, [seeds].
    """

    target: str
    predicted: float
    predicted_range: tuple[float, float]
    measured: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the seeds."""
        return float(np.mean(self.measured))

    @property
    def half_width(self) -> float:
        """Of the mean's 95% interval over seeds (Student's t); infinite with one seed."""
        count = len(self.measured)
        if count < 2:
            return float("inf")
        spread = float(np.std(self.measured, ddof=1)) / np.sqrt(count)
        return float(scipy.stats.t.ppf(0.975, count - 1)) * spread


@dataclasses.dataclass(frozen=True)
class Confirmation:
    """Predicted and measured changes.

    Attributes:
        steps: of each run. seeds: those that both runs have figures of.
        changes: by target, those of the objective and the bounds first.
        figures: of each run by target.
    """

    steps: int
    seeds: tuple[int, ...]
    changes: tuple[Change, ...]
    figures: dict[str, dict[str, float]]

    def lines(self) -> Iterator[str]:
        """What to print."""
        if not self.changes:
            yield "confirmation: no seed has figures of both runs"
            return
        yield f"proposal against prior, {self.steps:,} steps, {len(self.seeds)} seeds"
        yield f"{'target':<40}{'predicted':>10}   {'measured':>9}"
        for change in self.changes:
            around = f" ± {change.half_width:.2%}" if np.isfinite(change.half_width) else ""
            yield f"{change.target:<40}{change.predicted:>+10.2%}   {change.mean:>+9.2%}{around}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
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
            "figures": self.figures,
        }


def confirm(
    config: ConfigDict, swarm: Swarm, analysis: Analysis, runs: Runs
) -> tuple[int, Confirmation]:
    """Trains both mixtures with several seeds, or goes on with it.

    Args:
        config: of the sweep.
        swarm: of its runs.
        analysis: with a proposal.
        runs: whose `proxies` are replaced by the runs of the confirmation.

    Returns:
        0, or 143 where a SIGTERM has ended it, and what is known.
    """
    fields = config.sweep.confirm
    steps = fields.steps or 2 * config.steps
    overrides = {
        "prior": swarm.units.override(swarm.prior),
        "proposed": swarm.units.override(analysis.proposal.weights),
    }
    pairs = []
    for number in range(fields.seeds):
        # Another proposal, after another fit, has runs of its own.
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
    found = [tuple(figures_of(runs.results(proxy)) for proxy in pair) for pair in pairs]
    whole = [number for number, pair in enumerate(found) if all(pair)]
    figures = {p.name: f for pair, own in zip(pairs, found, strict=True)
               for p, f in zip(pair, own, strict=True) if f}  # fmt: skip
    asked = {**analysis.objective.targets, **analysis.objective.bounds}
    names = [*asked, *(name for name in analysis.fits if name not in asked)] if whole else []
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
    return code, Confirmation(steps, tuple(whole), changes, figures)


def _short_digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
