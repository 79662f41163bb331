"""What a run records besides metrics: its environment, its devices' memory, and samples."""

import json
import shutil
import time
import types

import jax
import pytest

from marco_jax.__main__ import main
from marco_jax.evaluation.samples import Samples
from marco_jax.reports.run_data import read_metrics
from marco_jax.runtime import device_memory
from marco_jax.training.clock import CLOCKED
from marco_jax.training.faults import Preempted
from marco_jax.training.loop import STOPPED, train
from marco_jax.training.restore import record_environment
from tests.processes import run_processes

pytestmark = pytest.mark.usefixtures("compiled_once")

SAMPLES = (
    *("evaluation.tasks=bits_per_byte", "evaluation.every=3", "evaluation.max_length=64"),
    *("evaluation.examples.bits_per_byte=4", "evaluation.samples.tokens=6"),
    *("evaluation.samples.prompts=10", "steps=6"),
    *("stages=base", "mixture.name=base"),
)


def environment_of(workdir):
    return json.loads((workdir / "environment.json").read_text("utf-8"))


def texts_of(workdir):
    folder = workdir / "samples"
    return {int(path.stem): path.read_text("utf-8") for path in folder.glob("*.json")}


@pytest.fixture(scope="module")
def sampled(root, overrides, tmp_path_factory):
    """The workdir of a run with samples, from the command line."""
    workdir = tmp_path_factory.mktemp("sampled")
    fields = [*overrides, *SAMPLES, "price_per_device_hour=4.2"]
    flags = [f"--config.{field}" for field in fields]
    command = ["train", f"--config={root / 'configs/demo.py'}", f"--workdir={workdir}"]
    assert main([*command, *flags]) == 0
    return workdir


def test_the_environment_names_the_config_and_what_it_changes(root, sampled):
    found = environment_of(sampled)
    assert found["config"] == str(root / "configs/demo.py")
    # A process counts from its own start.
    assert time.time() - 24 * 3600 < found["started"] < time.time()
    assert (found["hosts"], found["devices"], found["platform"]) == (1, 8, "cpu")
    assert found["versions"]["jax"] == jax.__version__
    changed = found["changed"]
    assert changed["steps"] == [1000, 6] and changed["batch.length"] == [256, 32]
    assert changed["price_per_device_hour"] == [0.0, 4.2]
    # Of a stage that the defaults do not have.
    assert changed["stage.base.share"] == [None, 0.3]
    assert "seed" not in changed and "stage.base" not in changed
    assert not any(name.startswith("distributed") for name in changed)


def test_the_environment_is_that_of_the_newest_attempt(small_config, tmp_path, monkeypatch):
    config = small_config()
    record_environment(config, tmp_path, 100.0, "a.py")
    record_environment(config, tmp_path, 200.5, "")
    found = environment_of(tmp_path)
    assert (found["started"], found["config"]) == (200.5, "")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    record_environment(config, tmp_path, 300.0, "b.py")
    assert environment_of(tmp_path) == found


def test_metrics_have_the_memory_of_the_fullest_device(small_config, tmp_path, monkeypatch):
    flushes = iter(range(1, 100))

    def local_devices():
        flush = next(flushes)
        stats = [
            {"bytes_in_use": 10 * flush, "peak_bytes_in_use": 100 * flush, "bytes_limit": 1000},
            {"bytes_in_use": 20 * flush, "peak_bytes_in_use": 50 * flush, "bytes_limit": 1000},
            None,
        ]
        return [types.SimpleNamespace(memory_stats=lambda own=own: own) for own in stats]

    fake = types.SimpleNamespace(
        local_devices=local_devices, errors=jax.errors, default_backend=lambda: "tpu"
    )
    monkeypatch.setattr(device_memory, "jax", fake)
    stages = ("stages=base", "mixture.name=base", "checkpoint.every=0")
    assert train(small_config(*stages, "steps=4", "log_every=2"), tmp_path) == 0
    rows = read_metrics(tmp_path / "metrics.jsonl")
    names = ("hbm_bytes", "hbm_peak_bytes", "hbm_limit_bytes")
    assert [[row[name] for name in names] for row in rows] == [
        *([20.0, 100.0, 1000.0] for _ in range(2)),
        *([40.0, 200.0, 1000.0] for _ in range(2)),
    ]


def test_a_device_that_does_not_report_memory_has_no_metrics(monkeypatch):
    def refuse():
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: MemoryStats")

    # The real devices of this process are CPUs.
    assert device_memory.memory_metrics() == {}
    devices = [types.SimpleNamespace(memory_stats=refuse)]
    devices += [types.SimpleNamespace(memory_stats=lambda: {"bytes_in_use": 7})]
    fake = types.SimpleNamespace(local_devices=lambda: devices, errors=jax.errors)
    monkeypatch.setattr(device_memory, "jax", fake)
    assert device_memory.memory_metrics() == {"hbm_bytes": 7.0}


def test_every_evaluation_has_samples(sampled):
    texts = texts_of(sampled)
    assert (
        sorted(texts)
        == [3, 6]
        == sorted(int(path.stem) for path in (sampled / "eval").glob("*.json"))
    )
    for step, text in texts.items():
        found = json.loads(text)
        assert list(found) == ["step", "tokens", "samples"]
        assert (found["step"], found["tokens"]) == (step, 6)
        # Of the ten languages the corpus has two.
        assert [row["language"] for row in found["samples"]] == ["en", "kk"]
        for row in found["samples"]:
            assert list(row) == ["language", "prompt", "text", "ended"]
            assert isinstance(row["text"], str) and isinstance(row["ended"], bool)
    last = read_metrics(sampled / "metrics.jsonl")[-1]
    assert last["evaluation_seconds"] > 0


def test_samples_change_neither_training_nor_results(small_config, sampled, tmp_path):
    assert train(small_config(*SAMPLES, "evaluation.samples.prompts=0"), tmp_path) == 0
    assert not (tmp_path / "samples").exists()
    for step in (3, 6):
        results = [(one / f"eval/{step}.json").read_text() for one in (sampled, tmp_path)]
        assert results[0] == results[1]
    rows = [
        [{k: v for k, v in row.items() if not k.endswith(CLOCKED)} for row in read_metrics(path)]
        for path in (sampled / "metrics.jsonl", tmp_path / "metrics.jsonl")
    ]
    assert rows[0] == rows[1]


def test_a_restart_keeps_older_samples_and_writes_those_of_repeated_steps(
    small_config, sampled, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(sampled, workdir)
    # As if it had been killed after step 3, with a file of a step that is repeated.
    shutil.rmtree(workdir / "checkpoints/6")
    (workdir / "samples/3.json").write_text("kept")
    (workdir / "samples/6.json").write_text("stale")
    assert train(small_config(*SAMPLES), workdir) == 0
    assert texts_of(workdir) == {3: "kept", 6: texts_of(sampled)[6]}


def test_a_signal_during_samples_keeps_the_results_and_the_restart_adds_samples(
    small_config, sampled, tmp_path, monkeypatch, capsys
):
    whole, evaluated = Samples.generate, []

    def cut(self, params, step, between):
        raise Preempted

    config = small_config(*SAMPLES, "evaluation.every=0")
    monkeypatch.setattr(Samples, "generate", cut)
    # After the last step, too, a run whose samples are missing is not done.
    assert train(config, tmp_path) == STOPPED
    assert "the samples of step 6: left to the restart" in capsys.readouterr().err
    results = (tmp_path / "eval/6.json").read_text()
    assert results == (sampled / "eval/6.json").read_text()
    assert not (tmp_path / "samples").exists()
    monkeypatch.setattr(Samples, "generate", whole)
    monkeypatch.setattr(
        "marco_jax.evaluation.evaluator.Evaluator.run", lambda *_, **__: evaluated.append(0)
    )
    assert train(config, tmp_path) == 0
    assert texts_of(tmp_path) == {6: texts_of(sampled)[6]} and not evaluated


def test_an_evaluation_that_time_cuts_short_still_has_samples(small_config, sampled, tmp_path):
    changes = ("evaluation.every=0", "evaluation.max_seconds=0.001")
    assert train(small_config(*SAMPLES, *changes), tmp_path) == 0
    assert json.loads((tmp_path / "eval/6.json").read_text())
    assert texts_of(tmp_path) == {6: texts_of(sampled)[6]}


def test_prompts_of_a_users_own_are_cut_like_others(small_config, tmp_path):
    file = tmp_path / "prompts.jsonl"
    rows = [{"language": "sw", "prompt": "the run saves " * 40}, {"language": "en", "prompt": "a"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    changes = (f"evaluation.samples.file={file}", "evaluation.every=0", "steps=2")
    assert train(small_config(*SAMPLES, *changes), tmp_path / "run") == 0
    found = json.loads(texts_of(tmp_path / "run")[2])["samples"]
    assert [row["language"] for row in found] == ["sw", "en"]
    assert found[0]["prompt"] == rows[0]["prompt"]


@pytest.mark.slow
def test_of_two_processes_the_first_writes(root, overrides, small_config, tmp_path):
    changes = (*SAMPLES, "mesh.tensor=1", "batch.sequences=4", "steps=3")
    for name in ("first.py", "second.py"):
        shutil.copy(root / "configs/demo.py", tmp_path / name)
    fields = [f"--config.{field}" for field in (*overrides, *changes)]
    run_processes(
        ["train", f"--workdir={tmp_path / 'run'}", *fields],
        processes=2,
        devices=2,
        own_arguments=lambda rank: [f"--config={tmp_path / ('first.py', 'second.py')[rank]}"],
    )
    found = environment_of(tmp_path / "run")
    assert found["config"].endswith("first.py")
    assert (found["hosts"], found["devices"]) == (2, 4)
    assert [row["language"] for row in json.loads(texts_of(tmp_path / "run")[3])["samples"]] == [
        "en",
        "kk",
    ]
