"""A run on a stranger's own SeqIO module, from the command line."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from marco_jax.reports.run_data import read_metrics
from marco_jax.tokenizers.tokenizer import train_sentencepiece
from tests.data import stranger

SAME = ("step", "loss", "grad_norm", "tokens", "loss/own_kk", "loss/own_en", "loss/own_pairs")


@pytest.fixture(scope="module")
def flags(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    module = stranger.make(folder, "own")
    texts = [*stranger.texts("kk", 200, 0), *stranger.texts("en", 260, 5)]
    train_sentencepiece(texts, 320, folder / "tokenizer")
    values = {
        "data": "",
        "mixture.modules": module,
        "mixture.name": "own_mixture",
        "mixture.tasks.languages": "own_kk=kk,own_en=en,own_asks=kk",
        "tokenizer.path": folder / "tokenizer",
        "stages": "stage1",
        "steps": 8,
        "model.hidden_size": 32,
        "model.intermediate_size": 64,
        "model.num_hidden_layers": 1,
        "batch.length": 64,
        "batch.sequences": 8,
        "log_every": 1,
        "checkpoint.every": 2,
        "evaluation.tasks": "bits_per_byte,seqio:own_asks",
        "evaluation.every": 0,
        "evaluation.max_new_tokens": 8,
        "feed.workers": 1,
    }
    return [
        f"--config={root}/configs/demo.py",
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def start(flags, workdir):
    command = [sys.executable, "-m", "marco_jax", "train", *flags, f"--workdir={workdir}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_strangers_mixture_trains_resumes_bit_exactly_and_is_evaluated(flags, tmp_path):
    whole = start(flags, tmp_path / "whole")
    said = whole.communicate(timeout=300)[1]
    assert whole.returncode == 0, said
    assert "InitializeLog" not in said and "oneDNN" not in said

    killed = start(flags, tmp_path / "killed")
    metrics = tmp_path / "killed/metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and len(read_metrics(metrics)) >= 3):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = start(flags, tmp_path / "killed")
    said = again.communicate(timeout=300)[1]
    assert again.returncode == 0, said

    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "killed")]
    assert [[row.get(key) for key in SAME] for row in rows[0]] == [
        [row.get(key) for key in SAME] for row in rows[1]
    ]
    evaluations = [
        json.loads((tmp_path / name / "eval/8.json").read_text()) for name in ("whole", "killed")
    ]
    assert evaluations[0] == evaluations[1]
    assert {row["language"] for row in evaluations[0]} == {"all", "en", "kk", "high", "low"}
    # What the metric function of a task of its own says of the model's answers.
    own = {r["metric"]: r for r in evaluations[0] if r["task"] == "seqio:own_asks"}
    assert 0 <= own["no_longer"]["value"] <= 1 and own["no_longer"]["examples"] == 200
    assert own["mean_words"]["value"] > 1
    described = json.loads((tmp_path / "whole/mixture.json").read_text())
    shares = described["stages"][0]["shares"]
    assert shares == pytest.approx({"own_kk": 0.6, "own_en": 0.2, "own_pairs": 0.2})

    # The step reads stores: TensorFlow is in the processes that prepare data.
    out = tmp_path / "eval.json"
    command = [sys.executable, "-m", "marco_jax", "eval", f"--model={tmp_path / 'whole'}"]
    subprocess.run([*command, f"--out={out}"], check=True, capture_output=True)
    # On one device here, and on several there.
    for row, other in zip(json.loads(out.read_text()), evaluations[0], strict=True):
        assert row["value"] == pytest.approx(other["value"], rel=1e-6)
        assert (row["task"], row["language"]) == (other["task"], other["language"])


@pytest.mark.slow
def test_a_task_is_read_from_the_cache_that_seqio_made(flags, tmp_path):
    """With the data gone: `seqio_cache_tasks` has the tasks of a run by its workdir."""
    assert start(flags, tmp_path / "run").wait(timeout=300) == 0
    before = json.loads((tmp_path / "run/mixture.json").read_text())["sources"]["own_kk"]
    environment = os.environ | {"MARCO_WORKDIR": str(tmp_path / "run")}
    tool = pathlib.Path(sys.executable).with_name("seqio_cache_tasks")
    command = [
        *(tool, "--module_import=marco_jax.data.run_tasks", "--tasks=own_kk,marco_run_stage1"),
        *(f"--output_cache_dir={tmp_path / 'cache'}", "--min_shards=2"),
    ]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300)
    module = pathlib.Path(
        next(f for f in flags if "modules" in f).partition("=")[2].partition("=")[2]
    )
    for file in module.parent.glob("kk-*.jsonl"):
        file.rename(file.with_suffix(".away"))
    try:
        changes = ["mixture.name=own_kk", f"mixture.tasks.caches={tmp_path / 'cache'}"]
        changes += ["mixture.tasks.languages=own_kk=kk", "evaluation.tasks=bits_per_byte"]
        own = [*flags, *(f"--config.{change}" for change in changes)]
        assert start(own, tmp_path / "cached").wait(timeout=300) == 0
    finally:
        for file in module.parent.glob("kk-*.away"):
            file.rename(file.with_suffix(".jsonl"))
    after = json.loads((tmp_path / "cached/mixture.json").read_text())["sources"]["own_kk"]
    assert (after["documents"], after["tokens"]) == (before["documents"], before["tokens"])
