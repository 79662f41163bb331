"""A checkpoint is what was written, or it is not used; and there is always one before it."""

import json
import pathlib
import resource
import shutil

import jax
import numpy as np
import pytest

from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.runtime import device_memory
from marco_jax.runtime.errors import RunFailed
from marco_jax.training.defaults import training_config
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.state import GuardOptions, TrainState
from marco_jax.training.step import StepOptions, Trainer
from marco_jax.weights.checkpoints import Checkpoints
from marco_jax.weights.manifest import MANIFEST, finished_steps
from marco_jax.weights.models import load_model

TINY = PRESETS["tiny"]
TEMPORARY = ".orbax-checkpoint-tmp"


def make_trainer(axes=None, devices=None, guard=None, moments="float32"):
    schedule = StageSchedule(steps=50, peak=1e-2).build()
    fields = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    optimizer = create_optimizer(TINY, schedule, **fields)
    sharding = Sharding(create_mesh(axes or {"fsdp": -1}, devices))
    options = StepOptions(guard=guard or GuardOptions())
    return Trainer(TINY, optimizer, schedule, sharding, 1, options)


def at_step(state, step):
    """A state that no other step has."""
    return state._replace(
        step=np.int32(step), params=jax.tree.map(lambda x: x + step, state.params)
    )


@pytest.fixture(scope="module")
def trainer():
    return make_trainer()


@pytest.fixture(scope="module")
def state(trainer):
    return trainer.init(seed=0)


def save(checkpoints, state, meta):
    checkpoints.save(int(state.step), state.arrays, TINY, meta | state.meta())


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state):
    """A workdir with the steps 3 and 6."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(workdir)
    for step in (3, 6):
        save(checkpoints, at_step(state, step), {"data": {"at": step}, "tokens": 10 * step})
    checkpoints.close()
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def restore(workdir, trainer, check=lambda meta: None):
    """(state, meta) or None, as a run does it."""
    checkpoints = Checkpoints(workdir)
    try:
        found = checkpoints.restore_newest(trainer.abstract_state().arrays, check)
        if found is None:
            return None
        arrays, meta = found
        return TrainState.restored(arrays, meta, trainer.options.guard), meta
    finally:
        checkpoints.close()


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def biggest(step, item):
    return max((step / item).rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)


def truncate(step):
    path = biggest(step, "params")
    path.write_bytes(path.read_bytes()[:-1])


def flip(step):
    path = biggest(step, "optimizer")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(step):
    (step / "params" / "manifest.ocdbt").write_bytes(b"")


def without_metadata(step):
    (step / "params" / "_METADATA").unlink()


def without_optimizer(step):
    shutil.rmtree(step / "optimizer")


def without_meta(step):
    shutil.rmtree(step / "meta")


def garbage_manifest(step):
    (step / MANIFEST).write_text('{"files": {"params/d')


def list_manifest(step):
    (step / MANIFEST).write_text("[]")


def without_manifest(step):
    (step / MANIFEST).unlink()


def half_renamed_item(step):
    (step / "params").rename(step / f"params{TEMPORARY}")


def one_file_left(step):
    for item in ("params", "optimizer", "meta"):
        shutil.rmtree(step / item)


DAMAGES = [
    truncate,
    flip,
    empty,
    without_metadata,
    without_optimizer,
    without_meta,
    garbage_manifest,
    list_manifest,
    without_manifest,
    half_renamed_item,
    one_file_left,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_moved_aside_and_the_one_before_is_used(
    damage, workdir, trainer, state, capsys
):
    step = workdir / "checkpoints/6"
    damage(step)
    left = sorted(path.relative_to(step) for path in step.rglob("*"))
    found, meta = restore(workdir, trainer)
    assert meta["step"] == int(found.step) == 3
    assert (meta["data"], meta["tokens"]) == ({"at": 3}, 30)
    assert_same(found.params, at_step(state, 3).params)
    assert_same(found.optimizer, state.optimizer)
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "WARNING checkpoint 6 is damaged (" in said[0]
    aside = workdir / "damaged/6"
    assert sorted(path.relative_to(aside) for path in aside.rglob("*")) == left
    # The step can be saved again, and is used then.
    checkpoints = Checkpoints(workdir)
    save(checkpoints, at_step(state, 6), {"tokens": 60})
    checkpoints.close()
    assert restore(workdir, trainer)[1]["step"] == 6


@pytest.mark.parametrize("damage", [truncate, without_manifest, without_meta])
def test_a_reader_passes_over_a_damaged_step_and_leaves_it(damage, workdir, capsys):
    shutil.rmtree(workdir / "checkpoints/6" / "optimizer")  # of no concern to a reader
    write_tokenizer(workdir)
    assert load_model(workdir).step == 6
    damage(workdir / "checkpoints/6")
    assert load_model(workdir).step == 3
    assert "checkpoint 6" in capsys.readouterr().err
    with pytest.raises(ValueError, match="checkpoints/6 is damaged"):
        load_model(workdir / "checkpoints/6")
    assert (workdir / "checkpoints/6").is_dir()


def write_tokenizer(workdir):
    from marco_jax.tokenizers.tokenizer import train_sentencepiece

    texts = ["some words of a text", "and some of another"]
    train_sentencepiece(texts, 275, workdir / "tokenizer")


def test_none_left_is_refused_and_never_a_new_start(workdir, trainer, capsys):
    for step in (3, 6):
        flip(workdir / "checkpoints" / str(step))
    for _ in range(2):
        with pytest.raises(RunFailed, match="all are damaged or gone"):
            restore(workdir, trainer)
    assert sorted(path.name for path in (workdir / "damaged").iterdir()) == ["3", "6"]
    shutil.rmtree(workdir / "damaged")
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(RunFailed, match="all are damaged or gone"):
        restore(workdir, trainer)


def test_a_workdir_without_a_checkpoint_yet_is_no_damage(tmp_path, trainer):
    assert restore(tmp_path, trainer) is None


@pytest.mark.parametrize("last", ["commit_success.txt", "_CHECKPOINT_METADATA", None])
def test_a_save_cut_before_its_rename_is_finished(last, workdir, trainer, capsys):
    step = workdir / "checkpoints/6"
    if last:  # what Orbax writes between the manifest and the rename
        (step / last).unlink()
    step.rename(f"{step}{TEMPORARY}")
    assert restore(workdir, trainer)[1]["step"] == 6
    assert "interrupted before its rename: finished" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [flip, without_manifest, without_optimizer])
def test_a_save_cut_in_its_files_is_removed(damage, workdir, trainer, capsys):
    step = workdir / "checkpoints/6"
    damage(step)
    step.rename(f"{step}{TEMPORARY}")
    assert restore(workdir, trainer)[1]["step"] == 3
    assert "WARNING the save of checkpoint 6 was interrupted" in capsys.readouterr().err
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["3"]


def test_other_arrays_are_refused_by_name(workdir, trainer):
    manifest = workdir / "checkpoints/6" / MANIFEST
    value = json.loads(manifest.read_text())
    name = next(name for name in value["arrays"] if name.startswith("optimizer"))
    value["arrays"][name][0] = "bfloat16"
    manifest.write_text(json.dumps(value))
    with pytest.raises(ValueError, match="bfloat16"):
        restore(workdir, trainer)


def test_a_state_comes_back_on_any_mesh(workdir, state, one_device):
    meshes = [
        make_trainer({"fsdp": 1}, one_device),
        make_trainer({"fsdp": 2, "tensor": 2, "data": 2}),
    ]
    for other in meshes:
        found, _ = restore(workdir, other)
        assert_same(found.params, at_step(state, 6).params)
        kernel = found.params["layers"]["mlp"]["gate_proj"]["kernel"]
        assert kernel.sharding.mesh.size == other.sharding.mesh.size


def test_the_guard_comes_back_bit_for_bit(tmp_path, state):
    options = GuardOptions(spike_sigmas=3.0, spike_window=4)
    losses = np.float32([0.1, 1 / 3, 2e-8, 7.7])
    kept = state._replace(guard=(options.init()._replace(losses=losses, skipped=np.int32(2))))
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, at_step(kept, 1), {})
    checkpoints.close()
    found, _ = restore(tmp_path, make_trainer(guard=options))
    np.testing.assert_array_equal(found.guard.losses, losses)
    assert found.guard.skipped == 2


def test_a_full_disk_ends_in_one_line_and_leaves_the_last_good_one(workdir, trainer, state):
    """The kernel refuses writes past a file's size limit as it does on a full disk."""
    checkpoints = Checkpoints(workdir)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            RunFailed, match="checkpoint 9 could not be saved.*: File too large;"
        ) as failure:
            save(checkpoints, at_step(state, 9), {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the newest complete one is 6" in str(failure.value)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["3", "6"]
    assert restore(workdir, trainer)[1]["step"] == 6


def test_a_large_state_on_a_cpu_is_written_before_the_next_step(tmp_path, state, monkeypatch):
    """The copy that Orbax writes would otherwise be in memory beside the next step's arrays."""
    checkpoints, waits = Checkpoints(tmp_path), []
    wait = checkpoints.wait
    monkeypatch.setattr(checkpoints, "wait", lambda: (waits.append(None), wait()))
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.arrays))
    monkeypatch.setattr(device_memory, "memory_limit", lambda: 9 * state_bytes)
    save(checkpoints, at_step(state, 1), {})
    assert len(waits) == 1
    monkeypatch.setattr(device_memory, "memory_limit", lambda: 7 * state_bytes)
    save(checkpoints, at_step(state, 2), {})
    assert len(waits) == 3
    assert 2 in finished_steps(tmp_path / "checkpoints")
    checkpoints.close()


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {1, 2, 3, 4, 5, 6}),
        ({"keep": 2}, {5, 6}),
        ({"keep": 1, "keep_every": 2}, {2, 4, 6}),
        ({"keep": 1, "keep_best": "-loss"}, {3, 6}),
        ({"keep": 1, "keep_best": "loss"}, {1, 6}),
    ],
)
def test_what_is_kept(changes, kept, tmp_path, state):
    policy = training_config().checkpoint
    policy.update(changes)
    checkpoints = Checkpoints(tmp_path, policy)
    for step, loss in enumerate([9.0, 5.0, 1.0, 2.0, None, 3.0], start=1):
        figures = {} if loss is None else {"loss": loss}
        save(checkpoints, at_step(state, step), {"metrics": figures})
    checkpoints.close()
    assert {int(path.name) for path in (tmp_path / "checkpoints").iterdir()} == kept


def test_a_policy_that_keeps_all_keeps_no_best(tmp_path):
    policy = training_config().checkpoint
    policy.keep_best = "loss"
    with pytest.raises(ValueError, match="checkpoint.keep is 0"):
        Checkpoints(tmp_path, policy)
