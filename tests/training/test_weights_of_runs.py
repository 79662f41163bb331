"""Runs that begin from given weights, and exports of runs in progress."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from marco_jax.__main__ import main
from marco_jax.training import restore
from marco_jax.training.assemble import create_sharding, create_trainer
from marco_jax.training.config import ConfigError
from marco_jax.training.loop import train
from marco_jax.training.restore import Restorer
from marco_jax.weights.checkpoints import Checkpoints
from marco_jax.weights.convert import import_huggingface
from marco_jax.weights.huggingface import load_huggingface
from marco_jax.weights.models import find_model, load_model
from marco_jax.weights.snapshots import Snapshots


@pytest.fixture(scope="module")
def finished(small_config, tmp_path_factory):
    """A run of 12 steps that exports as it goes."""
    workdir = tmp_path_factory.mktemp("finished")
    config = small_config(
        "export_every=5",
        "card.license=apache-2.0",
        "evaluation.tasks=bits_per_byte",
        "evaluation.every=5",
        "evaluation.max_length=256",
    )
    assert train(config, str(workdir)) == 0
    return workdir


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    """The run's end as others publish weights: in bfloat16, and imported."""
    directory = tmp_path_factory.mktemp("published")
    flags = ["--dtype=bfloat16", "--base_model=a/b"]
    assert main(["export", f"--model={finished}", f"--out={directory / 'hf'}", *flags]) == 0
    import_huggingface(directory / "hf", directory / "imported")
    return directory


def test_a_run_in_progress_is_exported(finished, tmp_path):
    exports = finished / "huggingface"
    ends = {"5", "10", "12"}
    assert {path.name for path in exports.iterdir()} >= ends
    assert main(["export", f"--model={finished}", f"--out={tmp_path / 'out'}"]) == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (exports / "12" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    assert load_huggingface(exports / "5")[1]["norm"]["scale"].dtype == np.float32


def test_its_card_tells_licence_mixture_tokens_and_scores(finished, tmp_path):
    card = (finished / "huggingface/10/README.md").read_text()
    assert card.startswith('---\nlicense: "apache-2.0"\nlanguage:\n- "en"\n- "de"\n- "kk"\n')
    metrics = [json.loads(line) for line in (finished / "metrics.jsonl").open()]
    read = {row["step"]: row for row in metrics if row["step"] <= 10}
    assert f"10 steps, {read[10]['tokens']:,} tokens." in card
    kazakh = sum(int(row.get("tokens/kk") or 0) for row in read.values())
    assert f"{kazakh:,} |" in next(line for line in card.splitlines() if "Kazakh" in line)
    assert "### bits_per_byte, 0 shots" in card and "At step 10;" in card
    assert main(["export", f"--model={finished}", f"--out={tmp_path / 'out'}"]) == 0
    assert 'license: "apache-2.0"' in (tmp_path / "out/README.md").read_text()


def test_an_export_is_cut_by_layer_from_a_checkpoint(finished):
    from marco_jax.weights.arrays import StoredParams

    found = find_model(finished)
    assert StoredParams(found.directory / "params", found.config).by_layer


def test_a_run_from_weights_alone_has_the_tokenizer_of_its_config(
    published, finished, small_config, tmp_path
):
    import_huggingface(published / "hf", tmp_path / "weights", weights_only=True)
    given = (f"init_from={tmp_path / 'weights'}", "steps=3", "checkpoint.every=3")
    with pytest.raises(FileNotFoundError, match="holds no tokenizer.* needs tokenizer.path"):
        train(small_config(*given), str(tmp_path / "refused"))
    path = f"tokenizer.path={finished / 'tokenizer'}"
    assert train(small_config(*given, path), str(tmp_path / "run")) == 0
    assert (
        find_model(tmp_path / "run").tokenizer.fingerprint
        == find_model(finished).tokenizer.fingerprint
    )


def test_an_unknown_export_dtype_is_refused(small_config, tmp_path):
    with pytest.raises(ConfigError, match="export_dtype is 'int8': choose one of float32"):
        train(small_config("export_every=5", "export_dtype=int8"), str(tmp_path))


@pytest.fixture
def loads(monkeypatch):
    """The parameters that runs have loaded from what they began with."""
    load, found = restore.load_weights, []

    def counted(*arguments):
        found.append(load(*arguments))
        return found[-1]

    monkeypatch.setattr(restore, "load_weights", counted)
    return found


@pytest.mark.parametrize("form", ["hf", "imported"])
def test_a_run_takes_either_form_and_owns_what_it_loads(
    small_config, published, form, tmp_path, loads
):
    config = small_config(f"init_from={published / form}")
    base = find_model(config.init_from)
    trainer = create_trainer(config, base.config, create_sharding(config), num_sources=1)
    stores = Checkpoints(tmp_path), Snapshots(tmp_path, config.checkpoint)
    restorer = Restorer(config, tmp_path, *stores, trainer, base, tokenizer="")
    state = restorer.initial_state()
    # Donated: the memory of the loaded arrays is the state's.
    assert len(loads) == 1 and all(leaf.is_deleted() for leaf in jax.tree.leaves(loads))
    expected = load_huggingface(published / "hf")[1]
    assert expected["norm"]["scale"].dtype == ml_dtypes.bfloat16
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, np.asarray(theirs, np.float32))


@pytest.mark.slow
def test_runs_from_either_form_are_the_same_and_resume(small_config, published, tmp_path, loads):
    ends = []
    for form in ("hf", "imported"):
        workdir = tmp_path / form
        changes = [f"init_from={published / form}", "export_every=6", "export_dtype=bfloat16"]
        assert train(small_config(*changes, "checkpoint.every=6"), str(workdir)) == 0
        ends.append(load_model(workdir).params)
        card = (workdir / "huggingface/12/README.md").read_text()
        assert 'license: "apache-2.0"\nbase_model: "a/b"' in card
        tensors = load_file(workdir / "huggingface/12/model.safetensors").values()
        assert {tensor.dtype for tensor in tensors} == {np.dtype(ml_dtypes.bfloat16)}
    for first, second in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(first, second)
    again = tmp_path / "imported"
    shutil.rmtree(again / "checkpoints/12")
    loads.clear()
    assert train(small_config(*changes, "checkpoint.every=6"), str(again)) == 0
    assert loads == []  # a resumed run has parameters of its own
    for first, second in zip(
        jax.tree.leaves(load_model(again).params), jax.tree.leaves(ends[0]), strict=True
    ):
        np.testing.assert_array_equal(first, second)
