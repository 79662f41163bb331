"""Paths that cannot be served are refused before anything is created."""

import os

import pytest

from marco_jax.__main__ import main
from marco_jax.files import check_local

DEMO = "configs/demo.py"


@pytest.mark.parametrize(
    "path", ["gs://b/run", "s3://b/run", "hf://o/m", "https://h/x", "gs:/b/run", "a.jsonl,gs://b/c"]
)
def test_paths_of_stores_and_hubs_are_refused(path):
    with pytest.raises(ValueError, match=r"--out=.*paths cannot be used here: .*give the path"):
        check_local("--out", path)


@pytest.mark.parametrize(
    "path", ["runs/demo", "/data/*.jsonl", "C:/data", "my_judge.py:judge", "a.jsonl,b.jsonl", ""]
)
def test_local_paths_pass(path):
    check_local("--out", path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config={root}/configs/demo.py", "--workdir=gs://b/run"],
        ["train", "--config={root}/configs/demo.py", "--workdir=gs:/b/run", "--dry_run"],
        ["train", "--config={root}/configs/demo.py", "--workdir=w", "--config.data_cache=gs://b/c"],
        ["train", "--config={root}/configs/demo.py", "--workdir=w", "--config.init_from=hf://q/q"],
        ["train", "--config={root}/configs/demo.py", "--workdir=w", "--config.data=s3://b/*.jsonl"],
        ["train", "--config=gs://b/demo.py", "--workdir=w"],
        ["eval", "--model=gs://b/run", "--out=r.json"],
        ["eval", "--model=m", "--out=gs://b/r.json"],
        ["eval", "--model=m", "--data_dir=gs://b/d", "--out=r.json"],
        ["generate", "--model=m", "--input=gs://b/p.jsonl", "--out=o.jsonl"],
        ["generate", "--model=m", "--input=p.jsonl", "--out=gs://b/o.jsonl"],
        ["translate", "--model=s3://b", "--src=en", "--tgt=kk", "--text=x"],
        ["import", "--hf=hf://Qwen/Qwen2-0.5B", "--out=o"],
        ["import", "--hf=h", "--out=gs://b/o"],
        ["export", "--model=m", "--out=s3://b/o"],
        ["plan", "--config={root}/configs/qwen2_7b.py", "--out=gs://b/plan.json"],
        ["sweep", "--config={root}/configs/mixture_ablation.py", "--workdir=gs://b/s"],
        ["report", "--workdir=gs://b/run"],
        ["report", "--compare", "a", "gs://b/run"],
    ],
)
def test_every_command_refuses_them_in_one_line(arguments, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([argument.format(root=root) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"marco {arguments[0]}: ") and "paths cannot be used here" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--model=m", "--out=folder"], "--out=folder is a folder"),
        (["eval", "--model=m", "--out=file/r.json"], "is a file, not a folder"),
        (["generate", "--model=m", "--input=p.jsonl", "--out=folder"], "is a folder"),
        (["export", "--model=m", "--out=file/hf"], "is a file, not a folder"),
        (["report", "--workdir=file"], "is a file, not a folder"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_first(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
