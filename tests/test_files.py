"""Paths that cannot be served are refused before anything is created."""

import os
import pathlib
import sys

import pytest

from marco_jax.__main__ import main
from marco_jax.files import as_path, check_path, is_remote
from marco_jax.stores import connect

DEMO = "configs/demo.py"


@pytest.mark.parametrize(
    "path", ["hf://o/m", "https://h/x", "az://c/x", "hdfs://h/x", "a,hf://o/m"]
)
def test_urls_of_hubs_and_of_other_stores_are_refused(path):
    with pytest.raises(ValueError, match=r"--out=.*paths cannot be used here: .*(give|download)"):
        check_path("--out", path)


@pytest.mark.parametrize(
    "path",
    [
        *("runs/demo", "/data/*.jsonl", "C:/data", "my_judge.py:judge", "a.jsonl,b.jsonl", ""),
        *("gs://b/run", "s3://b/run", "gs:/b/run", "a.jsonl,gs://b/c"),
    ],
)
def test_local_paths_and_those_of_object_stores_pass(path):
    check_path("--out", path)


@pytest.mark.parametrize("path", ["gs://", "s3:///name"])
def test_a_url_needs_a_bucket(path):
    with pytest.raises(ValueError, match="BUCKET"):
        check_path("--out", path)


def test_paths_are_local_or_of_a_store():
    assert as_path("gs://b/run") / "x" == as_path("gs://b/run/x")
    assert isinstance(as_path("runs/demo"), pathlib.Path) and not is_remote("runs/demo")
    assert is_remote("gs://b/run") and is_remote(as_path("s3://b"))


@pytest.mark.parametrize("missing", ["gcsfs", "s3fs"])
def test_a_store_whose_libraries_are_not_installed_is_one_line(
    missing, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    scheme, extra = {"gcsfs": ("gs", "gcs"), "s3fs": ("s3", "s3")}[missing]
    connect.configure.cache_clear()
    assert main(["export", "--model=m", f"--out={scheme}://b/o"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needs {missing}" in line and f"[{extra}]" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config={root}/configs/demo.py", "--workdir=hf://b/run"],
        ["train", "--config={root}/configs/demo.py", "--workdir=az:/b/run", "--dry_run"],
        ["train", "--config={root}/configs/demo.py", "--workdir=w", "--config.data_cache=az://b/c"],
        ["train", "--config={root}/configs/demo.py", "--workdir=w", "--config.init_from=hf://q/q"],
        ["train", "--config={root}/configs/demo.py", "--workdir=w", "--config.data=hf://b/*.jsonl"],
        ["train", "--config=hf://b/demo.py", "--workdir=w"],
        ["eval", "--model=hf://b/run", "--out=r.json"],
        ["eval", "--model=m", "--out=az://b/r.json"],
        ["eval", "--model=m", "--data_dir=hf://b/d", "--out=r.json"],
        ["generate", "--model=m", "--input=hf://b/p.jsonl", "--out=o.jsonl"],
        ["generate", "--model=m", "--input=p.jsonl", "--out=az://b/o.jsonl"],
        ["translate", "--model=hf://b", "--src=en", "--tgt=kk", "--text=x"],
        ["import", "--hf=hf://Qwen/Qwen2-0.5B", "--out=o"],
        ["import", "--hf=h", "--out=az://b/o"],
        ["export", "--model=m", "--out=az://b/o"],
        ["plan", "--config={root}/configs/qwen2_7b.py", "--out=az://b/plan.json"],
        ["sweep", "--config={root}/configs/mixture_ablation.py", "--workdir=az://b/s"],
        ["report", "--workdir=hf://b/run"],
        ["report", "--compare", "a", "hf://b/run"],
    ],
)
def test_every_command_refuses_other_urls_in_one_line(
    arguments, root, tmp_path, monkeypatch, capsys
):
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
