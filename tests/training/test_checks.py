"""What is wrong with a config comes to light before data is read, and a dry run writes nothing."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.data import load
from marco_jax.model.config import Qwen2Config
from marco_jax.training import checks, loop
from marco_jax.training.optimizer import create_optimizer

TINY = Qwen2Config(
    vocab_size=128,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    tie_word_embeddings=True,
)


@pytest.fixture
def marco(root, overrides, tmp_path, monkeypatch):
    """Runs a command on the small run's fields; reading the corpus fails the test."""

    def refuse(*_, **__):
        pytest.fail("data was read")

    def run(*changes, command="train", read=False):
        if not read:
            monkeypatch.setattr("marco_jax.training.run.load_corpus", refuse)
            monkeypatch.setattr("marco_jax.training.dry_run.load_corpus", refuse)
        flags = [f"--config.{field}" for field in [*overrides, *changes]]
        config = f"--config={root}/configs/demo.py"
        return main([command, config, f"--workdir={tmp_path / 'run'}", *flags])

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("evaluation.tasks=bits_per_bite", "did you mean 'bits_per_byte'"),
        ("evaluation.every_tasks=translatoin?", "did you mean 'translation'"),
        ("evaluation.languages=kkk", "language 'kkk' is unknown"),
        ("evaluation.tasks=belebele", "set evaluation.data_dir"),
        ("evaluation.examples.bits_per_bite=1", "did you mean 'bits_per_byte'"),
        ("evaluation.examples.bits_per_byte=0", "evaluation.examples.bits_per_byte is 0"),
        ("mixture.override=kkk=0.2", "did you mean 'kk'"),
        ("mixture.override=low-resuorce=0.2", "did you mean 'low-resource'"),
        ("mixture.override=stage3:kk=0.2", "'stage3'"),
        ("mixture.override=kk=20", "write 0.02 for 2%"),
        ("mixture.name=stge1", "did you mean 'stage1'"),
        ("stages=base,stge1,stage2", "no config.stage.stge1; did you mean 'stage1'"),
        ("wandb.project=mine", "wandb.project='mine' needs wandb, which is not installed: "),
        ("profile=3", "config.profile is '3'"),
        ("optimizer.clip_norm=-1", "optimizer.clip_norm is -1"),
        ("optimizer.clip_norm=nan", "optimizer.clip_norm is nan"),
        ("steps=0", "steps is 0"),
        ("remat=minimum", "did you mean 'minimal'"),
        ("dtype=bf16", "did you mean 'bfloat16'"),
        ("dtype=int8", "dtype is 'int8'"),
        ("attention=flash", "did you mean 'splash'"),
        ("tokenizer.path=nowhere", "tokenizer.path is 'nowhere'"),
        ("checkpoint.keep_every=2", "checkpoint.keep"),
        ("mesh.tensor=3", "does not fill 8 devices"),
        ("objective=spt", "choose one of"),
    ],
)
def test_mistakes_are_one_line_before_data_is_read(marco, tmp_path, capsys, change, message):
    assert marco(change) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("marco train: ") and message in line, line


def test_a_workdir_that_cannot_be_written_is_refused(marco, tmp_path, capsys):
    (tmp_path / "run").write_text("a file")
    assert marco() == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_a_disk_without_room_for_a_checkpoint_is_refused(marco, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        checks.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    assert marco(read=True) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "one checkpoint takes" in line and "make room" in line


def test_an_override_that_the_corpus_has_not_is_refused_before_it_is_tokenised(
    marco, tmp_path, capsys
):
    assert marco("mixture.override=ne=0.2", read=True) == 2
    assert "'ne'" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run/data").exists()


def test_a_dry_run_describes_the_run_and_writes_nothing(
    root, overrides, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    flags = [f"--config.{field}" for field in [*overrides, "evaluation.tasks=bits_per_byte?"]]
    config = f"--config={root}/configs/demo.py"
    assert main(["train", config, "--workdir=run", "--dry_run", *flags]) == 0
    text = capsys.readouterr().out
    for part in (
        "steps: 1000 -> 12",
        "mesh: 8 x cpu",
        "fsdp",
        "12 steps of 256 tokens",
        "stage2",
        "kk ",
        "100.00%" if "zh" in text else "%",
        "GiB logits",
        "checkpoints of",
        "bits_per_byte",
    ):
        assert part in text, part
    assert os.listdir(tmp_path) == []


def test_a_corpus_without_pairs_trains_with_the_default_evaluation(
    root, overrides, tmp_path, capsys
):
    corpus = tmp_path / "corpus.jsonl"
    words = {"en": "a text of the run", "de": "ein Text des Laufs", "kk": "қадам жаңа мәтін"}
    rows = [
        {"text": f"{text} {number} {number * 7}", "language": code}
        for code, text in words.items()
        for number in range(80)
    ]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [f"--config.{field}" for field in overrides if "evaluation" not in field]
    flags += [f"--config.data={corpus}", "--config.steps=3", "--config.tokenizer.vocab_size=300"]
    config = f"--config={root}/configs/demo.py"
    assert main(["train", config, f"--workdir={tmp_path / 'run'}", *flags]) == 0
    said = capsys.readouterr().err
    assert said.count("task 'pick_translation' has no held-out data") == 1
    rows = json.loads((tmp_path / "run/eval/3.json").read_text())
    assert {row["task"] for row in rows} == {"bits_per_byte"}
    named = [*flags, "--config.evaluation.tasks=translation"]
    assert main(["train", config, f"--workdir={tmp_path / 'other'}", *named]) == 2
    assert "task 'translation' has no held-out data" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "other/data").exists()


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_clip_norm_0_clips_nothing(clip_norm):
    fields = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.0}
    optimizer = create_optimizer(TINY, lambda step: 0.1, clip_norm=clip_norm, **fields)
    params = jax.tree.map(jnp.ones_like, _params())
    grads = jax.tree.map(lambda leaf: 100.0 * jnp.ones_like(leaf), params)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    # Adam's first step has the size of the learning rate, whatever the scale of the gradient.
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -0.1, rtol=1e-4)
    moments = jax.tree.leaves(jax.tree.map(lambda leaf: leaf.max(), state[1][0].mu))
    largest = float(max(moments))
    assert largest == pytest.approx(10.0) if clip_norm == 0 else largest < 0.1


def _params():
    from marco_jax.model.qwen2 import init_params

    return init_params(TINY, seed=0)


def test_the_corpus_is_read_by_this_name():
    # The fixture above patches it.
    assert loop.Run.__init__.__globals__["load_corpus"] is load.load_corpus
