"""Worlds whose answer is known: planted responses to mixtures, for trials of design and fit.

    python -m experiments.mixture_ablation.worlds --seeds=20
    python -m experiments.mixture_ablation.worlds --seeds=40 --first_seed=300

prints, a kind of world a line: how often there is a proposal, how often the planted optimum lies
within its 95% interval, and how often the true response breaks the bound, with the largest true
rise. Where nothing is planted there should be no proposal. Seeds from 300 were not looked at while
the method was made.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np

from marco_jax.ablation.design import draw_design
from marco_jax.ablation.fit import Response, fit_target
from marco_jax.ablation.propose import Objective, Proposal, minimise, propose

KINDS = ("log-linear", "interactions", "none")
PRIOR = dict(zip("abcdefgh", (0.32, 0.17, 0.2, 0.1, 0.08, 0.06, 0.05, 0.02), strict=True))
TARGETS = ("low", "mid", "en")
OBJECTIVE = Objective({"low": 0.5, "mid": 0.5}, {"en": 0.01})
RUNS, NOISE = 32, 0.004
# An optimum this far outside an interval counts as inside it: a tenth of a point.
SLACK = 1e-3


@dataclasses.dataclass(frozen=True)
class Trial:
    """A proposal, and the planted optimum.

    Attributes:
        proposal: what the runs lead to.
        optimum: the best mixture by the planted responses, [components].
        rises: true rise of each bounded target at the proposal; empty without one.
    """

    proposal: Proposal
    optimum: np.ndarray
    rises: Mapping[str, float]

    @property
    def broken(self) -> bool:
        """Whether the true response breaks any bound."""
        return any(rise > OBJECTIVE.bounds[name] for name, rise in self.rises.items())

    @property
    def inside(self) -> bool:
        """Whether all components of the optimum lie in the interval."""
        found = self.proposal
        if found.weights is None:
            return False
        above = self.optimum >= found.low - SLACK
        return bool((above & (self.optimum <= found.high + SLACK)).all())


def planted(kind: str, seed: int) -> dict[str, Response]:
    """One response per target: values from about 0.5 to 3, like bits per byte."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    components = len(PRIOR)
    found = {}
    for name in TARGETS:
        linear, pairs = rng.normal(0, 0.6, components), np.zeros((components, components))
        if kind == "interactions":
            for _ in range(5):
                first, second = rng.choice(components, 2, replace=False)
                pairs[first, second] += rng.normal(0, 0.75)
        if kind == "none":
            linear[:] = 0
        floor = rng.uniform(0.3, 1.0)
        found[name] = Response(floor, np.log(1.5), 1.0, linear, pairs + pairs.T)
    return found


def try_world(kind: str, seed: int, draws: int = 200) -> Trial:
    """Runs a swarm in a planted world, with noise, and proposes."""
    world = planted(kind, seed)
    design = draw_design(PRIOR, RUNS, seed)
    rng = np.random.default_rng([seed, 99])
    noise = 1 + NOISE * rng.standard_normal((len(TARGETS), RUNS))
    fits = {
        name: fit_target(design.weights, world[name].value(design.weights) * factor)
        for name, factor in zip(TARGETS, noise, strict=True)
    }
    proposal = propose(fits, design.prior, OBJECTIVE, draws=draws)
    rises = {}
    if proposal.weights is not None:
        for name in OBJECTIVE.bounds:
            after, before = (world[name].value(w) for w in (proposal.weights, design.prior))
            rises[name] = float(after / before - 1)
    return Trial(proposal, minimise(world, design.prior, OBJECTIVE), rises)


def describe(kind: str, trials: Sequence[Trial]) -> str:
    """A line that counts the outcomes of trials."""
    proposed = [trial for trial in trials if trial.proposal.weights is not None]
    line = f"{kind}: {len(proposed)} of {len(trials)} proposed"
    if not proposed:
        return line
    width = np.mean([trial.proposal.high - trial.proposal.low for trial in proposed])
    off = np.mean([abs(trial.proposal.weights - trial.optimum).max() for trial in proposed])
    broken = sum(trial.broken for trial in proposed)
    worst = max(rise for trial in proposed for rise in trial.rises.values())
    return (
        f"{line}, optimum inside in {sum(trial.inside for trial in trials)}; bound broken in "
        f"{broken} of {len(proposed)}, largest true rise {worst:+.2%}; mean width {width:.3f}, "
        f"largest miss {off:.3f} on average"
    )


def main() -> None:
    """Prints how often each kind of world is found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="number of worlds of each kind")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    kinds, first = arguments.kinds.split(","), arguments.first_seed
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds names {', '.join(sorted(unknown))}: there are {', '.join(KINDS)}")
    for kind in kinds:
        start = time.perf_counter()
        seeds = range(first, first + arguments.seeds)
        trials = [try_world(kind, seed, arguments.draws) for seed in seeds]
        print(f"{describe(kind, trials)} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
