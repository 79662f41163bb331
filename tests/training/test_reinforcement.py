"""Reinforcement learning runs: that they learn, resume exactly, and what they refuse."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.reports.run_data import read_metrics
from marco_jax.training.loop import train
from marco_jax.weights.models import load_model

WORDS = {
    "en": "the run saves its state and the next step reads a new batch",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін",
}
GRPO = ("objective=grpo", "mixture.name=prompt", "stages=stage1", "batch.length=128")
SMALL = ("grpo.prompts=4", "grpo.group=4", "grpo.max_prompt_tokens=64", "grpo.max_new_tokens=8")
LORA = ("lora.rank=4", "lora.base_dtype=float32")


def short_words(rows, answers):
    """Rewards answers whose words are short; a row may spoil its answers."""
    sizes = [np.mean([len(word) for word in answer.split() or ["x" * 40]]) for answer in answers]
    spoilt = [bool(row.get("spoilt")) for row in rows]
    return [float("nan") if bad else -size for bad, size in zip(spoilt, sizes, strict=True)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A declaration of prompts, in files as users have them."""
    directory = tmp_path_factory.mktemp("prompts")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(40):
        code, text = list(WORDS.items())[number % 2]
        said = " ".join(rng.choice(text.split(), 3))
        row = {"language": code, "prompt": said, "reference": said, "id": f"{code}{number}"}
        lines.append(json.dumps(row, ensure_ascii=False))
    (directory / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    sources = [{"name": "ask", "kind": "prompt", "files": "prompts.jsonl"}]
    (directory / "data.json").write_text(json.dumps({"sources": sources}))
    return directory / "data.json"


@pytest.fixture(scope="module")
def base(small_config, tmp_path_factory):
    """A model that has been pretrained for a few steps."""
    workdir = tmp_path_factory.mktemp("base")
    assert train(small_config("steps=3", "tokenizer.vocab_size=340"), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def rewarded(small_config, base, data):
    """Makes the config of a run from the base."""

    def make(*changes):
        given = (f"init_from={base}", f"data={data}", "steps=4", "log_every=1")
        scorer = f"grpo.rewards={__file__}:short_words"
        return small_config(*given, "checkpoint.every=3", *GRPO, *SMALL, scorer, *changes)

    return make


def lines_of(workdir):
    clocked = ("tokens_per_second", "mfu", "_seconds", "_share")
    rows = read_metrics(pathlib.Path(workdir) / "metrics.jsonl")
    kept = ("cut_share", "alike_share", "unused_share", "clip_share")
    return [
        {k: v for k, v in row.items() if k.startswith(kept) or not k.endswith(clocked)}
        for row in rows
    ]


def assert_same_run(workdir, other):
    assert lines_of(workdir) == lines_of(other)
    for path in sorted((workdir / "answers").iterdir()):
        assert path.read_bytes() == (other / "answers" / path.name).read_bytes()
    first, second = load_model(workdir), load_model(other)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "changes",
    [
        # A round of two steps: the checkpoint at step 3 is within one.
        ("grpo.updates=2", "grpo.kl=0.1"),
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("grpo.epochs=3", *LORA), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_same_run(rewarded, tmp_path, changes):
    assert train(rewarded(*changes), tmp_path / "whole") == 0
    # As if it had been killed after step 3.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/4")
    assert train(rewarded(*changes), tmp_path / "cut") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
