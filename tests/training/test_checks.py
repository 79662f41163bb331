"""What is wrong with a config comes to light before data is read, and a dry run writes nothing."""

import json
import os
import shutil

import pytest

from marco_jax import files
from marco_jax.__main__ import main
from marco_jax.model.mesh import Sharding
from marco_jax.training.assemble import check_run, create_sharding
from marco_jax.training.config import load_config, model_config


@pytest.fixture
def marco(root, overrides, tmp_path, monkeypatch):
    """Runs a command on the small run's fields; reading the corpus fails the test."""

    def refuse(*_, **__):
        pytest.fail("data was read")

    def run(*changes, command="train", read=False):
        if not read:
            monkeypatch.setattr("marco_jax.training.loop.load_corpus", refuse)
            monkeypatch.setattr("marco_jax.planning.dry_run.load_corpus", refuse)
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
        ("evaluation.benchmark_shots=-2", "evaluation.benchmark_shots is -2: write -1 or more"),
        ("evaluation.max_seconds=-1", "evaluation.max_seconds is -1"),
        ("evaluation.samples.tokens=0", "evaluation.samples.tokens is 0: write 1 or more"),
        ("evaluation.samples.file=nowhere.jsonl", "'nowhere.jsonl', which is not a file"),
        ("price_per_device_hour=-1", "price_per_device_hour is -1"),
        ("mixture.override=kkk=0.2", "did you mean 'kk'"),
        ("mixture.override=low-resuorce=0.2", "did you mean 'low-resource'"),
        ("mixture.override=stage3:kk=0.2", "'stage3'"),
        ("mixture.override=kk=20", "write 0.02 for 2%"),
        ("mixture.override=kk=0.1,kk=0.2", "set the share of 'kk' twice"),
        ("languages.extra=sw:Swahili:middle", "the group is 'middle': write high or low"),
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
        ("quantize=int4", "quantize is 'int4', which is not known: did you mean 'int8'"),
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


def test_prompts_of_samples_are_read_before_data(marco, tmp_path, capsys):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"language": "en", "prompt": "Water"}\n{"language": "en"}\n')
    assert marco("evaluation.samples.prompts=2", f"evaluation.samples.file={file}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "evaluation.samples.file: " in line and "prompts.jsonl:2: no text" in line
    fields = ("evaluation.tasks=bits_per_byte", "evaluation.max_length=48")
    assert marco(*fields, "evaluation.samples.prompts=2") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "it must leave room for a prompt in evaluation.max_length=48" in line


def test_a_workdir_that_cannot_be_written_is_refused(marco, tmp_path, capsys):
    (tmp_path / "run").write_text("a file")
    assert marco() == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_a_disk_without_room_for_a_checkpoint_is_refused(marco, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    assert marco(read=True) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "GB are needed: make room" in line


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
        # English and German in the proportions of Table 2: 32 to 30.
        "51.61%",
        "GiB logits",
        "checkpoints of",
        "bits_per_byte",
    ):
        assert part in text, part
    assert os.listdir(tmp_path) == []


def test_without_text_or_tokenizer_the_fields_to_set_are_named(root, overrides, tmp_path, capsys):
    flags = [f"--config.{field}" for field in overrides]
    config = f"--config={root}/configs/demo.py"
    own = ["--config.data=", "--config.mixture.modules=json", "--config.mixture.name=mine"]
    assert main(["train", config, f"--workdir={tmp_path / 'run'}", *flags, *own]) == 2
    assert "set tokenizer.path, or init_from" in capsys.readouterr().err.splitlines()[-1]


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


def test_values_are_not_offloaded_from_gpus(root, monkeypatch):
    config = load_config(str(root / "configs/demo.py"), ["remat=offload"])
    model, sharding = model_config(config, 256), create_sharding(config)
    check_run(config, model, sharding)
    monkeypatch.setattr(Sharding, "platform", property(lambda sharding: "gpu"))
    with pytest.raises(ValueError, match="remat is 'offload' and the devices are GPUs.*remat=min"):
        check_run(config, model, sharding)
