"""The steps that config.profile names leave a trace, and a table of their longest operations."""

import json
import logging

import jax
import pytest

from benchmarks.common import packed_batch
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.training.assemble import create_sharding, create_trainer
from marco_jax.training.hooks import Event
from marco_jax.training.outputs import ProfileHook

ROWS, LENGTH = 8, 64


@pytest.mark.slow
def test_profiled_steps_say_where_their_time_went(small_config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    fields = (f"batch.length={LENGTH}", "mesh.tensor=1", "attention=xla", "remat=none")
    model, config = PRESETS["tiny"], small_config(*fields)
    trainer = create_trainer(config, model, create_sharding(config), num_sources=1)
    hook, state = ProfileHook(tmp_path, "2:3"), trainer.init(seed=0)
    rows = packed_batch(ROWS, LENGTH, model.vocab_size, documents=2)
    hook(Event(0, "base", state, None))
    for step in range(1, 5):
        state, metrics = trainer.step(state, jax.device_put(rows, trainer.batch_sharding))
        hook(Event(step, "base", state, metrics))
    times = json.loads((tmp_path / "profile.json").read_text())
    assert (times["first_step"], times["last_step"], times["devices"]) == (2, 3, 8)
    assert 0 < times["exposed"] <= times["collectives"] <= times["busy"] <= times["span"]
    assert len(times["longest"]) == 10
    own = [row for row in times["longest"] if row["program"] == "jit_update"]
    assert any(row["collective"] for row in own)
    # Parts of the model, not only names of instructions.
    assert any("Qwen2" in row["part"] or "Attention" in row["part"] for row in own)
    table = (tmp_path / "profile.txt").read_text().splitlines()
    assert table[0] == "steps 2 to 3" and "8 devices" in table[1] and len(table) == 14
    assert all(line in caplog.text for line in table)
    assert list((tmp_path / "profile").glob("**/*.xplane.pb"))


@pytest.mark.parametrize("broken", [True, False])
def test_a_trace_that_cannot_be_read_does_not_end_the_run(tmp_path, monkeypatch, caplog, broken):
    monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: None)

    def stop_trace():
        (tmp_path / "profile").mkdir()
        if broken:
            (tmp_path / "profile" / "host.xplane.pb").write_bytes(b"no trace")

    monkeypatch.setattr(jax.profiler, "stop_trace", stop_trace)
    hook = ProfileHook(tmp_path, "1:1")
    for step in (0, 1):
        hook(Event(step, "base", (), None))
    assert "could not be summed up" in caplog.text
    assert not (tmp_path / "profile.json").exists()
