"""Worlds whose answer is known: planted responses to mixtures, for trials of design and fit.

    python -m experiments.mixture_ablation.worlds --seeds=20

prints, a kind of world a line, how often the planted optimum lies within the 95% interval of the
proposal, and how often there is one. Where nothing is planted there should be none.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

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
    """A proposal, and the planted optimum."""

    proposal: Proposal
    optimum: np.ndarray

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
    return Trial(proposal, minimise(world, design.prior, OBJECTIVE))


def main() -> None:
    """Prints how often each kind of world is found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args()
    for kind in KINDS:
        start = time.perf_counter()
        trials = [try_world(kind, seed, arguments.draws) for seed in range(arguments.seeds)]
        proposed = [trial for trial in trials if trial.proposal.weights is not None]
        line = f"{kind}: {len(proposed)} of {len(trials)} proposed"
        if proposed:
            width = np.mean([trial.proposal.high - trial.proposal.low for trial in proposed])
            off = np.mean([abs(trial.proposal.weights - trial.optimum).max() for trial in proposed])
            line += f", optimum inside in {sum(trial.inside for trial in trials)}"
            line += f"; mean width {width:.3f}, largest miss {off:.3f} on average"
        print(f"{line} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
