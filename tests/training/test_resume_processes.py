"""A run goes on with other numbers of processes and devices: same batches, same losses."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from marco_jax.evaluation.results import read_results
from marco_jax.reports.run_data import read_metrics
from marco_jax.weights.huggingface import load_huggingface
from tests.processes import run_processes

STEPS = 6


def launch(workdir: pathlib.Path, overrides: list[str], processes: int, devices: int) -> None:
    """`marco train` on several processes with some virtual devices each, to its end."""
    fields = [f"--config.{field}" for field in overrides]
    command = ["train", "--config=configs/demo.py", f"--workdir={workdir}", *fields]
    run_processes(command, processes, devices)


def at_step(workdir: pathlib.Path, copy: pathlib.Path, step: int) -> pathlib.Path:
    """A copy of a workdir as it was when it had saved `step`."""
    shutil.copytree(workdir, copy)
    for saved in (copy / "checkpoints").iterdir():
        if saved.name.isdigit() and int(saved.name) > step:
            shutil.rmtree(saved)
    return copy


@pytest.fixture(scope="module")
def alone(overrides, tmp_path_factory) -> tuple[pathlib.Path, list[str]]:
    """The run of one process with eight devices; and the fields that make it."""
    fields = [*overrides, f"steps={STEPS}", "checkpoint.every=2", "batch.sequences=8"]
    fields += ["mesh.tensor=1", "log_every=1"]
    workdir = tmp_path_factory.mktemp("alone") / "run"
    launch(workdir, fields, processes=1, devices=8)
    return workdir, fields


MORE = [pytest.param(*shape, marks=pytest.mark.slow) for shape in ((4, 2), (1, 4))]


@pytest.mark.parametrize(("processes", "devices"), [(2, 2), *MORE])
def test_another_number_of_processes_and_devices_goes_on_with_the_same_run(
    alone, tmp_path, processes, devices
):
    """Eight devices to step 2, others from there on; and eight again from their step 4 on."""
    workdir, fields = alone
    other = at_step(workdir, tmp_path / "other", 2)
    launch(other, fields, processes, devices)
    back = at_step(other, tmp_path / "back", 4)
    launch(back, fields, processes=1, devices=8)
    wanted = read_metrics(workdir / "metrics.jsonl")
    for changed in (other, back):
        found = read_metrics(changed / "metrics.jsonl")
        assert [row["step"] for row in found] == list(range(1, STEPS + 1))
        for row, want in zip(found, wanted, strict=True):
            assert {n: v for n, v in row.items() if n.startswith("tokens/")} == {
                n: v for n, v in want.items() if n.startswith("tokens/")
            }
            # Float32 sums in another order.
            np.testing.assert_allclose(row["loss"], want["loss"], rtol=1e-5)
    assert json.loads((back / "mixture.json").read_text()) == json.loads(
        (workdir / "mixture.json").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_train_evaluate_save_and_export_as_one_does(
    overrides, tmp_path, processes
):
    """From nothing to step 3, and on from there in new processes: export and figures equal."""
    fields = [*overrides, "steps=6", "checkpoint.every=3", "batch.sequences=8", "mesh.tensor=1"]
    fields += ["evaluation.tasks=bits_per_byte,pick_translation", "export_every=6", "log_every=1"]
    for name, count in (("one", 1), ("several", processes)):
        workdir = tmp_path / name
        launch(workdir, fields, count, 2 * processes // count)
        cut = at_step(workdir, tmp_path / f"{name}_again", 3)
        shutil.rmtree(cut / "huggingface")
        launch(cut, fields, count, 2 * processes // count)
    wanted = tmp_path / "one"
    for other in ("several", "several_again", "one_again"):
        found = tmp_path / other
        assert read_config(found) == read_config(wanted)
        losses = [
            [row["loss"] for row in read_metrics(w / "metrics.jsonl")] for w in (found, wanted)
        ]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        names = [sorted(path.name for path in (w / "eval").iterdir()) for w in (found, wanted)]
        assert names[0] == names[1] and len(names[0]) >= 3
        for name in (name for name in names[0] if name.endswith(".json")):
            rows = [read_results(w / "eval" / name) for w in (found, wanted)]
            for row, want in zip(*rows, strict=True):
                keys = [(one.task, one.language, one.metric) for one in (row, want)]
                assert keys[0] == keys[1]
                np.testing.assert_allclose(row.value, want.value, rtol=1e-4, atol=1e-6)
        pairs = [load_huggingface(w / "huggingface" / "6")[1] for w in (found, wanted)]
        for mine, theirs in zip(*map(jax.tree.leaves, pairs), strict=True):
            # Sums of gradients in another order, through Adam's division by a small root.
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def read_config(workdir):
    """The resolved config, but for what a process is told of its place."""
    fields = json.loads((workdir / "config.json").read_text())
    return {name: value for name, value in fields.items() if name != "distributed"}
