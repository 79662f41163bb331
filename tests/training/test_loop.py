"""A run that is killed, stopped or evaluated is the run that was not."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.data.resume_order import OrderChanged
from marco_jax.reports.run_data import read_metrics
from marco_jax.training.clock import CLOCKED
from marco_jax.training.loop import STOPPED, train
from marco_jax.weights.models import load_model

EVALUATION = (
    "evaluation.tasks=bits_per_byte,pick_translation,translation",
    "evaluation.every=3",
    "evaluation.shots=1",
    "evaluation.max_length=256",
)


def losses(workdir):
    """Every figure of every step that is about the step, not about the clock."""
    rows = read_metrics(pathlib.Path(workdir) / "metrics.jsonl")
    return [
        {name: value for name, value in row.items() if not name.endswith(CLOCKED)} for row in rows
    ]


def assert_same_parameters(workdir, other):
    first, second = load_model(workdir), load_model(other)
    assert first.step == second.step
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def uninterrupted(small_config, tmp_path_factory):
    """The workdir of the small run, from start to end."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert train(small_config(), workdir) == 0
    return workdir


def start(root, overrides, workdir):
    """The same run in a process of its own."""
    flags = [f"--config.{override}" for override in overrides]
    command = [sys.executable, "-m", "marco_jax", "train", "--config=configs/demo.py"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *flags],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for_step(process, workdir, step):
    deadline = time.monotonic() + 240
    while not any(row["step"] >= step for row in read_metrics(workdir / "metrics.jsonl")):
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_workdir_holds_what_a_reader_expects(uninterrupted):
    rows = losses(uninterrupted)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["stage"] for row in rows] == ["base"] * 4 + ["stage1"] * 4 + ["stage2"] * 4
    assert {"loss", "learning_rate", "tokens", "grad_norm", "padding"} <= rows[0].keys()
    for row in rows:
        sources = [name for name in row if name.startswith("loss/")]
        counts = [row[name.replace("loss", "tokens")] for name in sources]
        mean = np.average([row[name] for name in sources], weights=counts)
        assert row["loss"] == pytest.approx(mean, rel=1e-5)
    assert "loss/kk" not in rows[0]
    assert rows[-1]["tokens"] == sum(v for r in rows for k, v in r.items() if k[:7] == "tokens/")
    assert rows[-1]["loss"] < rows[0]["loss"]
    mixture = json.loads((uninterrupted / "mixture.json").read_text())
    assert [stage["first_step"] for stage in mixture["stages"]] == [0, 4, 8]
    steps = {int(path.name) for path in (uninterrupted / "checkpoints").iterdir()}
    assert steps == {3, 4, 6, 8, 9, 12}
    assert list((uninterrupted / "tensorboard").iterdir())


def test_kill_9_and_restart_give_the_uninterrupted_run(
    root, overrides, small_config, uninterrupted, tmp_path
):
    process = start(root, overrides, tmp_path)
    wait_for_step(process, tmp_path, step=6)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert train(small_config(), tmp_path) == 0
    assert losses(tmp_path) == losses(uninterrupted)
    assert_same_parameters(tmp_path, uninterrupted)


def test_sigterm_saves_and_the_restart_goes_on(
    root, overrides, small_config, uninterrupted, tmp_path
):
    # Steps of this model take milliseconds: saves alone leave time for the signal.
    process = start(root, [*overrides, "checkpoint.every=1", "log_every=1"], tmp_path)
    wait_for_step(process, tmp_path, step=1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0].decode()
    assert process.returncode == STOPPED, output
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved < 12
    assert f"step {saved} is saved" in output
    assert train(small_config(), tmp_path) == 0
    assert losses(tmp_path) == losses(uninterrupted)


def test_evaluation_leaves_training_bit_identical(small_config, uninterrupted, tmp_path):
    assert train(small_config(*EVALUATION), tmp_path) == 0
    assert losses(tmp_path) == losses(uninterrupted)
    assert_same_parameters(tmp_path, uninterrupted)
    tasks = {
        int(path.stem): {row["task"] for row in json.loads(path.read_text())}
        for path in (tmp_path / "eval").glob("*.json")
    }
    assert {step for step, names in tasks.items() if len(names) == 3} == {4, 8, 12}
    assert {step for step, names in tasks.items() if names == {"bits_per_byte"}} == {3, 6, 9}


def test_marco_eval_gives_the_figures_of_the_loop(small_config, tmp_path, capsys):
    workdir, out = tmp_path / "run", tmp_path / "out.json"
    assert train(small_config(*EVALUATION, "steps=4"), workdir) == 0
    assert main(["eval", f"--model={workdir}", f"--out={out}"]) == 0
    loop = json.loads((workdir / "eval/4.json").read_text())
    alone = json.loads(out.read_text())
    assert len(loop) == len(alone) > 10
    for a, b in zip(loop, alone, strict=True):
        # The loop ran on eight devices, the command on one: float32 sums in another order.
        value, stderr = a.pop("value"), a.pop("stderr")
        assert b.pop("value") == pytest.approx(value, abs=1e-4)
        assert b.pop("stderr") == pytest.approx(stderr, abs=1e-4)
        assert a == b


def test_a_run_watches_benchmarks(small_config, tmp_path, capsys):
    row = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect"}
    rows = [json.dumps(row | {"premise": f"It rained {n}.", "label": n % 2}) for n in range(8)]
    (tmp_path / "val.zh.jsonl").write_text("\n".join(rows), encoding="utf-8")
    fields = {"tasks": "xcopa@validation", "every_tasks": "", "data_dir": tmp_path}
    changes = [f"evaluation.{name}={value}" for name, value in fields.items()]
    assert train(small_config(*changes, "steps=4"), tmp_path / "run") == 0
    results = json.loads((tmp_path / "run/eval/4.json").read_text())
    row = next(row for row in results if row["language"] == "zh" and row["metric"] == "accuracy")
    # The paper's five shots, whatever the run's other tasks show.
    assert (row["task"], row["shots"], row["examples"]) == ("xcopa@validation", 5, 8)
    steered = [*changes, "evaluation.tasks=xcopa@validation,xcopa:3@validation", "steps=4"]
    steered += ["evaluation.benchmark_shots=1", "evaluation.max_seconds=0.001"]
    steered += ["evaluation.examples.xcopa=6"]
    assert train(small_config(*steered), tmp_path / "steered") == 0
    results = json.loads((tmp_path / "steered/eval/4.json").read_text())
    found = {row["task"]: (row["shots"], row["examples"]) for row in results}
    # A first share is evaluated, whatever the time.
    assert found == {"xcopa@validation": (1, 1), "xcopa:3@validation": (3, 1)}
    assert "2 of 12 items were evaluated" in capsys.readouterr().err


def test_a_run_can_start_from_another_and_changes_are_said(
    small_config, uninterrupted, tmp_path, capsys
):
    config = small_config("steps=3", f"init_from={uninterrupted}", "mixture.name=all")
    assert train(config, tmp_path) == 0
    assert losses(tmp_path)[0]["loss"] < losses(uninterrupted)[1]["loss"]
    assert (
        load_model(tmp_path).tokenizer.fingerprint
        == load_model(uninterrupted).tokenizer.fingerprint
    )
    capsys.readouterr()
    other = ("steps=5", f"init_from={uninterrupted}")
    with pytest.raises(OrderChanged, match="the data's order is not that of the checkpoint"):
        train(small_config(*other), tmp_path)
    assert train(small_config(*other, "mixture.accept_change=true"), tmp_path) == 0
    said = capsys.readouterr().err
    assert "mixture.name: 'all' -> 'base,stage1,stage2'" in said
    assert "the data's order changes at step 3: " in said
    assert "goes on where it was left: documents not read yet in its epoch come first" in said
    found = re.search(r"learning rate after step 3: (\S+) before, (\S+) under the new (.*)", said)
    assert float(found[1]) < float(found[2]) and "steps: 3 -> 5" in found[3]
    assert [row["step"] for row in losses(tmp_path)] == [1, 2, 3, 4, 5]


def test_generation_export_and_import_from_the_command_line(uninterrupted, tmp_path, capsys):
    assert main(["export", f"--model={uninterrupted}", f"--out={tmp_path / 'hf'}"]) == 0
    assert main(["import", f"--hf={tmp_path / 'hf'}", f"--out={tmp_path / 'back'}"]) == 0
    assert main(["export", f"--model={tmp_path / 'back'}", f"--out={tmp_path / 'again'}"]) == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    texts = []
    for model in (uninterrupted, uninterrupted / "checkpoints/12", tmp_path / "hf"):
        capsys.readouterr()
        assert main(["generate", f"--model={model}", "--prompt=the run", "--max_new_tokens=8"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('{"prompt": "the run", "id": 1}\n{"prompt": "қадам"}\n', "utf-8")
    flags = [f"--model={uninterrupted}", f"--input={prompts}", f"--out={out}"]
    assert main(["generate", *flags, "--max_new_tokens=8"]) == 0
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert rows[0] == {"prompt": "the run", "id": 1, "text": texts[0].removesuffix("\n")}
    assert main(["report", f"--workdir={uninterrupted}"]) == 0
    assert (uninterrupted / "report.html").stat().st_size > 1000
    assert os.sep in capsys.readouterr().out
