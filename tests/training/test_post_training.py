"""Fine-tuning runs: what they learn from, what they refuse, and that they resume bit for bit."""

import json
import pathlib

import jax
import numpy as np
import pytest

from marco_jax.training.loop import train
from marco_jax.training.metrics import read_metrics
from marco_jax.training.models import load_model

LANGUAGES = {
    "en": "the run saves its state and the next step reads a new batch",
    "de": "der Lauf sichert seinen Stand und der Schritt liest neuen Text",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін",
}
SFT = ("objective=sft", "mixture.name=chat", "mixture.within=proportional", "stages=stage1")
DPO = ("objective=dpo", "mixture.name=preference", "mixture.within=proportional", "stages=stage1")
LORA = ("lora.rank=4", "lora.base_dtype=float32")


def conversations():
    """Two or three turns each, in three languages."""
    rng = np.random.default_rng(0)
    for number in range(120):
        code, text = list(LANGUAGES.items())[number % 3]
        words = text.split()
        messages = []
        for _ in range(rng.integers(1, 3)):
            for role in ("user", "assistant"):
                said = " ".join(rng.choice(words, rng.integers(1, 4)))
                messages.append({"role": role, "content": said})
        yield {"language": code, "messages": messages}


def preferences():
    """The chosen answer repeats what is asked, the rejected one another word."""
    rng = np.random.default_rng(1)
    for number in range(120):
        code, text = list(LANGUAGES.items())[number % 3]
        prompt, other = rng.choice(text.split(), 2, replace=False)
        yield {"language": code, "prompt": prompt, "chosen": prompt, "rejected": other}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A declaration of both."""
    directory = tmp_path_factory.mktemp("data")
    for name, rows in (("talk", conversations()), ("choices", preferences())):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (directory / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    sources = [
        {"name": "talk", "kind": "chat", "files": "talk.jsonl"},
        {"name": "choices", "kind": "preference", "files": "choices.jsonl"},
    ]
    (directory / "data.json").write_text(json.dumps({"sources": sources}))
    return directory / "data.json"


@pytest.fixture(scope="module")
def base(small_config, tmp_path_factory):
    """A model that has been pretrained for a few steps."""
    workdir = tmp_path_factory.mktemp("base")
    assert train(small_config("steps=3", "tokenizer.vocab_size=340"), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def tuned(small_config, base, data):
    """Makes the config of a run that goes on from the base."""

    def make(*changes):
        given = (f"init_from={base}", f"data={data}", "batch.length=160", "steps=6")
        return small_config(*given, "checkpoint.every=3", *changes)

    return make


def figures(workdir):
    """The lines of metrics, without what the clock says."""
    clocked = ("tokens_per_second", "mfu", "_seconds", "evaluation_share")
    rows = read_metrics(pathlib.Path(workdir) / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.endswith(clocked)} for row in rows]


def assert_same_run(workdir, other):
    assert figures(workdir) == figures(other)
    first, second = load_model(workdir), load_model(other)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("changes", [SFT, DPO, (*SFT, *LORA), (*DPO, *LORA, "dpo.reference=live")])
def test_a_resumed_run_is_the_same_run(tuned, tmp_path, changes, monkeypatch):
    assert train(tuned(*changes), tmp_path / "whole") == 0
    cut = tuned(*changes)
    cut.checkpoint.keep = 0
    assert train(cut, tmp_path / "cut") == 0
    # As if it had been killed after step 3.
    import shutil

    shutil.rmtree(tmp_path / "cut/checkpoints/6")
    assert train(tuned(*changes), tmp_path / "cut") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_losses_are_told_apart_by_language(tuned, tmp_path):
    assert train(tuned(*SFT), tmp_path / "sft") == 0
    row = figures(tmp_path / "sft")[-1]
    assert {"loss/talk", "loss/talk/en", "loss/talk/de", "loss/talk/kk"} <= set(row)
    counts = [row[f"tokens/talk/{code}"] for code in LANGUAGES]
    losses = [row[f"loss/talk/{code}"] for code in LANGUAGES]
    assert sum(counts) == row["tokens/talk"]
    assert np.average(losses, weights=counts) == pytest.approx(row["loss"], rel=1e-5)
    assert row["padding"] < 0.2
