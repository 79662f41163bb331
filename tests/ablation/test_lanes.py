"""Runs that train at once are the runs that train one after the other."""

import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest

from marco_jax.ablation.proxies import Proxy, Runs
from marco_jax.evaluation.results import read_results
from marco_jax.model.parameters import flatten
from marco_jax.model.qwen2 import abstract_params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.reports.run_data import read_metrics
from marco_jax.training.clock import CLOCKED
from marco_jax.training.config import load_config
from marco_jax.training.loop import train
from marco_jax.weights.checkpoints import read_meta, restore_params
from tests.ablation.small import small_runs

pytestmark = pytest.mark.usefixtures("compiled_once")

STEPS = 6
# More runs than lanes. The third has more sources than the first two, and so another program.
OVERRIDES = ("en=0.7,zh=0,de=0,ne=0", "kk=0.6,zh=0,de=0,ne=0", "ne=0.5", "de=0.4,kk=0.2", "zh=0.5")
PROXIES = [
    Proxy(f"run{number}", {"mixture.override": override, "seed": number})
    for number, override in enumerate(OVERRIDES)
]


@pytest.fixture(scope="module")
def config(root, data):
    """A sweep of runs that take seconds."""
    fields = small_runs(data) | {
        "data_cache": data / "cache",
        "steps": STEPS,
        "batch.sequences_per_chip": 1,
        "checkpoint.every": 2,
        "log_every": 1,
        # With Adam's usual epsilon the rounding of a gradient near zero becomes a whole step.
        "optimizer.eps": 1e-4,
        "sweep.keep": True,
        "evaluation.samples.prompts": 2,
        "evaluation.samples.tokens": 4,
    }
    overrides = [f"{name}={value}" for name, value in fields.items()]
    return load_config(str(root / "configs/mixture_ablation.py"), overrides)


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The runs one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    assert Runs(folder, config, PROXIES, train).run() == 0
    return folder


def in_lanes(folder, config, parallel, train=train, lanes=2):
    config = config.copy_and_resolve_references()
    config.sweep.parallel = parallel
    return Runs(folder, config, PROXIES, train, lanes)


def parameters(workdir):
    step = workdir / "checkpoints" / str(STEPS)
    like = abstract_params(Qwen2Config(**read_meta(step)["model"]))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    return {path: np.asarray(value) for path, value in flatten(restore_params(step, like)).items()}


def assert_same_run(found: pathlib.Path, wanted: pathlib.Path):
    """The same parameters, metrics at every step, evaluation and order of data."""
    want = parameters(wanted)
    for path, value in parameters(found).items():
        # Float32 sums in another order.
        np.testing.assert_allclose(value, want[path], atol=1e-5, err_msg=path)
    rows, wanted_rows = (read_metrics(w / "metrics.jsonl") for w in (found, wanted))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row, other in zip(rows, wanted_rows, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            if isinstance(value, float) and not name.endswith(CLOCKED):
                np.testing.assert_allclose(value, other[name], rtol=1e-4, err_msg=name)
    results, others = (read_results(w / "eval" / f"{STEPS}.json") for w in (found, wanted))
    np.testing.assert_allclose(
        [result.value for result in results], [result.value for result in others], rtol=1e-4
    )
    # Texts may differ where sums in another order decide between two tokens.
    samples = [
        json.loads((w / f"samples/{STEPS}.json").read_text())["samples"] for w in (found, wanted)
    ]
    prompts = [[(row["language"], row["prompt"]) for row in own] for own in samples]
    assert prompts[0] == prompts[1] and len(prompts[0]) == 2
    mixtures = [json.loads((w / "mixture.json").read_text("utf-8")) for w in (found, wanted)]
    assert mixtures[0] == mixtures[1]


@pytest.mark.parametrize("parallel", [pytest.param("vmap", marks=pytest.mark.slow), "slices"])
def test_runs_in_lanes_are_the_runs_alone_also_beside_one_that_fails(
    config, alone, tmp_path, parallel, capsys
):
    """Two runs end at the same step; then one fails in mid-training, and another takes its lane."""

    def failing(config, workdir, seat):
        if workdir.endswith("run3"):
            taken = seat.step

            def step(state, batch):
                if seat.clock.step == 3:
                    raise RuntimeError("the disk is full")
                return taken(state, batch)

            seat.step = step
        try:
            return train(config, workdir, seat)
        finally:
            vars(seat).pop("step", None)

    runs = in_lanes(tmp_path, config, parallel, failing)
    assert runs.run() == 0
    logged = capsys.readouterr().err
    assert "run3 has failed: RuntimeError: the disk is full" in logged
    states = [runs.state(proxy) for proxy in PROXIES]
    assert [state.status for state in states] == ["done", "done", "done", "failed", "done"]
    for proxy in PROXIES:
        if proxy.name != "run3":
            assert_same_run(tmp_path / proxy.name, alone / proxy.name)
    # The next start tries it again, alone and from its checkpoint.
    assert in_lanes(tmp_path, config, parallel).run() == 0
    assert_same_run(tmp_path / "run3", alone / "run3")


def test_a_signal_saves_all_lanes_and_the_next_start_goes_on(config, alone, tmp_path):
    started = []

    def signalled(config, workdir, seat):
        started.append(pathlib.Path(workdir).name)
        if workdir.endswith("run2"):
            # One lane has ended its first run and starts its second, the other is further.
            os.kill(os.getpid(), signal.SIGTERM)
        return train(config, workdir, seat)

    runs = in_lanes(tmp_path, config, "vmap", signalled)
    assert runs.run() == 143
    assert started == ["run0", "run1", "run2"]
    again = in_lanes(tmp_path, config, "slices", lanes=4)
    assert again.run() == 0
    for proxy in PROXIES:
        assert_same_run(tmp_path / proxy.name, alone / proxy.name)
