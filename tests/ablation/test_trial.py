"""What a few steps say of the time of a sweep."""

import json
import pathlib

import pytest

from marco_jax.ablation.proxies import Proxy
from marco_jax.ablation.trial import RunCost, time_runs
from marco_jax.training.config import load_config

COMPILE, START, STEP, EVALUATION, CHECKPOINT = 40.0, 12.0, 0.5, 3.0, 2.0


class Machine:
    """Trains on a clock of its own; runs after the first find their programs compiled."""

    def __init__(self):
        self.now, self.ran = 0.0, []

    def train(self, config, workdir, seat=None):
        self.ran.append(dict(steps=config.steps, override=config.mixture.override))
        assert not config.evaluation.at_start
        spent = {"evaluation_seconds": 0.0, "checkpoint_seconds": 0.0}
        self.now += START + COMPILE * (len(self.ran) == 1)
        rows = []
        for step in range(1, config.steps + 1):
            self.now += STEP
            rows.append({"step": step, "step_seconds": STEP, **spent})
            for name, field, seconds in (
                ("evaluation_seconds", config.evaluation.every, EVALUATION),
                ("checkpoint_seconds", config.checkpoint.every, CHECKPOINT),
            ):
                if field and step % field == 0 and step < config.steps:
                    spent[name] += seconds
                    self.now += seconds
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(lines, "utf-8")
        return 0


@pytest.mark.parametrize(
    "every, saves, wanted",
    [
        (0, 400, RunCost(COMPILE, START, STEP, 0.0, 0.0, 1)),
        (25, 50, RunCost(COMPILE, START, STEP, EVALUATION, CHECKPOINT, 1)),
    ],
)
def test_what_a_run_costs_is_told_apart(root, tmp_path, every, saves, wanted):
    overrides = [f"evaluation.every={every}", f"checkpoint.every={saves}"]
    config = load_config(str(root / "configs/mixture_ablation.py"), overrides)
    proxies = [Proxy(n, {"mixture.override": n, "evaluation.at_start": True}) for n in "ab"]
    machine = Machine()
    cost = time_runs(config, proxies, tmp_path / "trial", machine.train, now=lambda: machine.now)
    assert machine.ran == [{"steps": 6, "override": "a"}, {"steps": 6, "override": "b"}]
    assert cost == wanted and not (tmp_path / "trial").exists() and config.steps == 100
    # The whole sweep on the same machine.
    whole = Machine()
    for number in range(5):
        config.evaluation.at_start = False
        whole.train(config, tmp_path / f"run{number}")
    assert cost.seconds(config, 5, config.steps) == pytest.approx(whole.now)


def test_groups_of_runs_share_their_time(root):
    config = load_config(str(root / "configs/mixture_ablation.py"), [])
    cost = RunCost(compile=10, start=5, step=0.1, evaluation=0, checkpoint=0, lanes=4)
    # Nine runs in lanes of four: three rounds.
    assert cost.seconds(config, 9, 100) == pytest.approx(10 + 3 * 15)
    assert "0.1 s a step of 4 runs at once, 5 s a run besides, 10 s to compile" in cost.line()
