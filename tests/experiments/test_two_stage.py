"""The chain from base to export: what it leaves, and that it goes on where it was cut."""

import json
import pathlib

import pytest

from experiments.two_stage import __main__ as command
from experiments.two_stage import chain
from marco_jax.training.config import load_config
from marco_jax.weights.models import find_model

SMALL = [
    *("pretrain.steps=6", "pretrain.tokenizer.vocab_size=340", "pretrain.evaluation.tasks="),
    *("pretrain.mixture.name=flat", "pretrain.stages=stage1", "sft.steps=3", "dpo.steps=2"),
    *("own_data.pairs=6", "own_data.requests=2", "own_data.samples=3", "own_data.held_out=1"),
    # Warmer, a model of six steps writes broken UTF-8 alone, of which no preference is made.
    *("own_data.least_gap=0", "own_data.temperature=0.1"),
]
for part in chain.PARTS:
    SMALL += [f"{part}.batch.length=512", f"{part}.batch.sequences_per_chip=1"]
    for name, size in {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }.items():
        SMALL.append(f"{part}.model.{name}={size}")


@pytest.fixture
def flags(root, tmp_path, corpus_file):
    """The command of a chain of seconds."""
    fields = [f"--config.{field}" for field in (*SMALL, f"pretrain.data={corpus_file}")]
    return [f"--config={root / 'configs/two_stage.py'}", f"--workdir={tmp_path / 'chain'}", *fields]


def test_a_chain_that_was_cut_goes_on_and_ends_in_an_export(flags, tmp_path, monkeypatch, capsys):
    trained, train = [], chain.train

    def stops_at(part):
        def record(config, workdir):
            trained.append(pathlib.Path(workdir).name)
            return chain.STOPPED if trained[-1] == part else train(config, workdir)

        return record

    monkeypatch.setattr(chain, "train", stops_at("dpo"))
    assert command.main(flags) == chain.STOPPED
    monkeypatch.setattr(chain, "train", stops_at(None))
    assert command.main(flags) == 0
    assert trained == ["pretrain", "sft", "dpo", "dpo"]
    workdir = tmp_path / "chain"
    told = capsys.readouterr().out
    assert "dpo, 2 steps: held-out chrF++" in told
    found = json.loads((workdir / "chain.json").read_text())
    assert list(found) == ["pretrain", "sft", "dpo"]
    exported = find_model(workdir / "huggingface")
    assert "<|im_start|>" in exported.tokenizer.companions.chat_template
    assert exported.config == find_model(workdir / "dpo").config
    # All is there: nothing runs again.
    assert command.main(flags) == 0 and len(trained) == 4


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.sft.init_from=here", "leave it empty"),
        ("--config.own_data.requets=2", "did you mean 'requests'?"),
    ],
)
def test_bad_input_ends_in_one_line(flags, flag, words, capsys):
    assert command.main([*flags, flag]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and words in error[0]


def test_every_part_of_the_large_chain_is_of_one_model(root):
    config = load_config(str(root / "configs/two_stage_7b.py"))
    assert {config[part].model.preset for part in chain.PARTS} == {"qwen2_7b"}
    assert {config[part].topology for part in chain.PARTS} == {"v5p:4x4x4"}


@pytest.mark.slow
def test_the_large_chain_fits_its_machine(root, capsys):
    pytest.importorskip("libtpu")
    flags = [f"--config={root / 'configs/two_stage_7b.py'}", "--plan"]
    assert command.main(flags) == 0
    assert capsys.readouterr().out.count("training step                               fits") == 3
