"""Do weights that follow the losses (`config.mixture.adaptive`) beat the fixed mixture?

    python -m experiments.mixture_ablation.adaptive --config=configs/mixture_ablation.py \
        --workdir=runs/adaptive --seeds=3 --config.init_from=runs/base --config.steps=400

From one base, with the same tokens, order of documents and learning rates: the fixed mixture, and
the same with weights that change every tenth step. It prints bits per byte by language after each,
the change from fixed to adaptive of the same seed with the 95% interval of its mean, and where the
weights went. A killed run goes on with the same command; --dry_run trains nothing.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.mixture_ablation.arms import Arms, command, ratios
from marco_jax.ablation.confirm import mean_half_width
from marco_jax.languages import high_resource, low_resource
from marco_jax.reports.run_data import load_run

FIXED, ADAPTIVE = "fixed", "adaptive"
# Weights change after these steps; losses are logged as often.
EVERY = 10
ARMS = {
    FIXED: {"mixture.name": "flat", "log_every": EVERY},
    ADAPTIVE: {"mixture.name": "flat", "log_every": EVERY, "mixture.adaptive.every": EVERY},
}
_SHARE = "share/"


def compare_adaptive(arms: Arms) -> dict[str, Any]:
    """Bits per byte of both arms, and the last shares of the adaptive one.

    Returns:
        plain data: `before` by language; `fixed` and `adaptive`, a seed each, by language;
        `changes` from fixed to adaptive by language, "mean", "high-resource" and "low-resource", a
        seed each, as ratios less one; `shares` by source: the configured one and the last, a seed
        each.
    """
    fixed, adaptive = arms.bits(FIXED), arms.bits(ADAPTIVE)
    changes = ratios(adaptive, fixed)
    groups = {
        "mean": list(changes),
        "high-resource": [code for code in changes if code in ("en", *high_resource())],
        "low-resource": [code for code in changes if code in low_resource()],
    }
    means = {
        name: np.mean([changes[code] for code in codes], axis=0).tolist()
        for name, codes in groups.items()
        if codes
    }
    return {
        "seeds": arms.seeds,
        "steps": arms.config.steps,
        "before": arms.before(),
        "fixed": fixed,
        "adaptive": adaptive,
        "changes": {**changes, **means},
        "shares": _shares(arms),
    }


def _shares(arms: Arms) -> dict[str, dict[str, Any]]:
    """The first and the last share of each source in the adaptive arm, a seed each."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(arms.seeds):
        rows = load_run(arms.workdir(ADAPTIVE, number)).metrics
        first, last = (next(row for row in way if _has_shares(row)) for way in (rows, rows[::-1]))
        for key in first:
            if key.startswith(_SHARE):
                source = found.setdefault(
                    key.removeprefix(_SHARE), {"configured": first[key], "last": []}
                )
                source["last"].append(last[key])
    return found


def _has_shares(row: Mapping[str, Any]) -> bool:
    return any(key.startswith(_SHARE) for key in row)


def markdown(found: Mapping[str, Any], _: pathlib.Path) -> list[str]:
    """Two tables: bits per byte by language, and shares by source."""
    lines = ["| language | before | fixed | adaptive | change |", "|---" * 5 + "|"]
    for name, changes in found["changes"].items():
        cells = [""] * 3
        if name in found["before"]:
            bits = [np.mean([seed[name] for seed in found[arm]]) for arm in (FIXED, ADAPTIVE)]
            cells = [f"{value:.3f}" for value in (found["before"][name], *bits)]
        lines.append(f"| {name} | " + " | ".join([*cells, _mean(changes)]) + " |")
    lines += ["", "| source | configured | adaptive, at the end |", "|---" * 3 + "|"]
    for source, shares in found["shares"].items():
        ends = " to ".join(f"{end(shares['last']):.1%}" for end in (min, max))
        lines.append(f"| {source} | {shares['configured']:.1%} | {ends} |")
    return lines


def _mean(values: Sequence[float]) -> str:
    """The mean over seeds with its 95% interval."""
    around = f" ± {mean_half_width(values):.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):+.1%}{around}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison and writes adaptive.json into the workdir."""
    purpose = __doc__.partition("\n")[0]
    return command("adaptive", purpose, ARMS, compare_adaptive, markdown, argv)


if __name__ == "__main__":
    sys.exit(main())
