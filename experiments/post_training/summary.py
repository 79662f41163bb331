"""The study's table: chrF++ of every stage and seed, and its differences.

python -m experiments.post_training.summary runs/study0 runs/study1 runs/study2
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from collections.abc import Sequence

STAGES = ("base", "sft", "dpo", "control", "grpo", "grpo_chrf")
STEPS = (
    *(("base", "sft"), ("sft", "dpo"), ("sft", "control"), ("control", "dpo")),
    *(("sft", "grpo"), ("dpo", "grpo"), ("sft", "grpo_chrf"), ("dpo", "grpo_chrf")),
)


def table(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """Markdown lines: a row a stage, a column a seed; then differences between stages."""
    found = [_scores(workdir) for workdir in workdirs]
    heads = " | ".join(f"seed {number}" for number in range(len(found)))
    lines = [f"| stage | {heads} | mean | in their language | characters |"]
    lines.append("|---" * (len(found) + 4) + "|")
    for stage in STAGES:
        own = [scores.get(stage) for scores in found]
        if all(own):
            chrf = [scores["chrf"] for scores in own]
            cells = [f"{value:.2f}" for value in (*chrf, statistics.mean(chrf))]
            rate = statistics.mean(scores["language_rate"] for scores in own)
            size = statistics.mean(scores["characters"] for scores in own)
            lines.append(f"| {' | '.join([stage, *cells, f'{rate:.0%}', f'{size:.0f}'])} |")
    lines += ["", f"| difference | {heads} | mean |", "|---" * (len(found) + 2) + "|"]
    for before, after in STEPS:
        if all(before in scores and after in scores for scores in found):
            gains = [scores[after]["chrf"] - scores[before]["chrf"] for scores in found]
            cells = [f"{gain:+.2f}" for gain in (*gains, statistics.mean(gains))]
            lines.append(f"| {' | '.join([f'{before} to {after}', *cells])} |")
    return lines


def _scores(workdir: pathlib.Path) -> dict[str, dict]:
    paths = {stage: workdir / f"{stage}.scores.json" for stage in STAGES}
    return {stage: json.loads(path.read_text()) for stage, path in paths.items() if path.exists()}


if __name__ == "__main__":
    print("\n".join(table([pathlib.Path(argument) for argument in sys.argv[1:]])))
