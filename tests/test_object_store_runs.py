"""A run with nothing but object-store paths: train, kill, resume, evaluate, export, load."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from marco_jax.extras import is_installed
from marco_jax.files import as_path, sizes_below, upload_tree
from tests.conftest import TEXTS
from tests.processes import run_processes
from tests.store_server import find_server, store_server

STEPS, EVERY = 24, 8
CONFIG = (
    *("tokenizer.vocab_size=360", "batch.length=64", "mixture.name=base", "stages=base"),
    *("evaluation.tasks=bits_per_byte?", "evaluation.every_tasks=", "model.hidden_size=64"),
    *("model.num_hidden_layers=2", f"steps={STEPS}", f"checkpoint.every={EVERY}", "log_every=4"),
)


@pytest.fixture(scope="module", params=["gs", "s3"])
def server(request, tmp_path_factory):
    """A server with a corpus in its bucket."""
    if not is_installed("gcsfs" if request.param == "gs" else "s3fs"):
        pytest.skip("the libraries of the store are not installed")
    with store_server(request.param, tmp_path_factory.mktemp("store")) as found, find_server(found):
        upload_tree(_corpus(tmp_path_factory.mktemp("corpus")), as_path(f"{found.root}/corpus"))
        yield found


@pytest.fixture(scope="module")
def local(server, tmp_path_factory):
    """The same run in a local folder."""
    folder = tmp_path_factory.mktemp("local")
    _marco(server, *_train(_corpus(folder / "corpus"), folder / "run", folder / "cache"))
    return folder / "run"


def _corpus(folder: pathlib.Path) -> pathlib.Path:
    (folder / "docs").mkdir(parents=True)
    for code, text in TEXTS.items():
        words = text.split()
        rows = [
            {"text": " ".join(words[(7 * n * k) % len(words)] for k in range(1, 9 + n % 50))}
            for n in range(400)
        ]
        lines = "".join(json.dumps(row | {"language": code}) + "\n" for row in rows)
        (folder / "docs" / f"{code}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def _train(data, workdir, cache) -> list[str]:
    fields = [*CONFIG, f"data={data}", f"data_cache={cache}"]
    return [
        *("train", "--config=configs/demo.py", f"--workdir={workdir}"),
        *(f"--config.{field}" for field in fields),
    ]


def _start(server, *arguments: str, **more: str) -> subprocess.Popen:
    root = pathlib.Path(__file__).resolve().parent.parent
    environment = {**os.environ, **server.environment, "XLA_FLAGS": "", **more}
    return subprocess.Popen(
        [sys.executable, "-m", "marco_jax", *arguments],
        cwd=root,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _marco(server, *arguments: str) -> str:
    process = _start(server, *arguments)
    out, log = process.communicate(timeout=400)
    assert process.returncode == 0, log[-3000:]
    return out + log


def _wait_for(path, process) -> None:
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.2)
    pytest.fail(f"{path} did not appear")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_in_a_store_is_that_of_a_local_folder(server, local, tmp_path):
    root, run = as_path(server.root), as_path(f"{server.root}/runs/a")
    # Every tenth request fails all the while.
    server.control("every=10")
    arguments = _train(root / "corpus", run, root / "cache")
    first = _start(server, *arguments)
    _wait_for(run / "checkpoints" / str(EVERY) / "manifest.json", first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = _start(server, *arguments)
    _wait_for(run / "checkpoints" / str(2 * EVERY) / "manifest.json", second)
    server.control("down=20")
    _, log = second.communicate(timeout=400)
    assert second.returncode == 0, log[-3000:]
    assert f"resuming at step {EVERY}" in log or f"resuming at step {2 * EVERY}" in log
    assert server.control()["failed"] > 10
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (local / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    server.control("every=0")
    assert json.loads((run / "environment.json").read_text())["config"] == "configs/demo.py"
    name = f"samples/{STEPS}.json"
    assert (run / name).read_text() == (local / name).read_text()
    # Exports of both have the same bytes.
    _marco(server, "export", f"--model={run}", f"--out={root}/hf")
    _marco(server, "export", f"--model={local}", f"--out={tmp_path}/hf")
    assert (root / "hf" / "model.safetensors").read_bytes() == (
        tmp_path / "hf" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hosts_share_a_store(server, local):
    root = as_path(server.root)
    # Each host has half of the sequences of the local run.
    arguments = _train(root / "corpus", root / "runs" / "two", root / "two_cache")
    fields = ["--config.batch.sequences_per_chip=4"]
    logs = run_processes([*arguments, *fields], 2, 1, server.environment)
    assert "lock" not in logs[1]
    rows = [json.loads(r) for r in (root / "runs/two/metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (local / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == pytest.approx([r["loss"] for r in expected], rel=1e-5)
    names = sizes_below(root / "runs" / "two" / "checkpoints" / str(STEPS))
    assert any("ocdbt.process_1/" in name for name in names) and "manifest.json" in names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_other_commands_take_the_paths_of_a_store(server, local, tmp_path):
    root = as_path(server.root)
    upload_tree(local, root / "copy")
    model = f"--model={root}/copy"
    _marco(server, "eval", model, "--tasks=bits_per_byte", f"--out={root}/results.json")
    assert json.loads((root / "results.json").read_text())[0]["task"] == "bits_per_byte"
    (root / "prompts.jsonl").write_text(json.dumps({"prompt": "the run"}) + "\n")
    _marco(
        server,
        *("generate", model, f"--input={root}/prompts.jsonl", f"--out={root}/answers.jsonl"),
        *("--max_new_tokens=4",),
    )
    assert len((root / "answers.jsonl").read_text().splitlines()) == 1
    _marco(server, "report", f"--workdir={root}/copy")
    assert "</html>" in (root / "copy" / "report.html").read_text()
    _marco(server, "export", model, f"--out={root}/exported")
    _marco(server, "import", f"--hf={root}/exported", f"--out={root}/imported")
    _marco(server, "export", f"--model={root}/imported", f"--out={root}/again")
    same = [(root / name / "model.safetensors").read_bytes() for name in ("exported", "again")]
    assert same[0] == same[1]
    transformers = pytest.importorskip("transformers")
    for name in sizes_below(root / "exported"):
        (tmp_path / name).write_bytes((root / "exported" / name).read_bytes())
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() > 0
