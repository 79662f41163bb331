"""Fine-tuning runs: what they learn from, what they refuse, and that they resume bit for bit."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.reports.run_data import read_metrics
from marco_jax.training.clock import CLOCKED
from marco_jax.training.loop import train
from marco_jax.weights.models import load_model

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
def tuned(small_config, base, data):
    """Makes the config of a run that goes on from the base."""

    def make(*changes):
        given = (f"init_from={base}", f"data={data}", "batch.length=160", "steps=6")
        return small_config(*given, "checkpoint.every=3", *changes)

    return make


def figures(workdir):
    """The lines of metrics, without what the clock says."""
    rows = read_metrics(pathlib.Path(workdir) / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.endswith(CLOCKED)} for row in rows]


def assert_same_run(workdir, other):
    assert figures(workdir) == figures(other)
    first, second = load_model(workdir), load_model(other)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "changes",
    [
        SFT,
        pytest.param(DPO, marks=pytest.mark.slow),
        pytest.param((*SFT, *LORA), marks=pytest.mark.slow),
        pytest.param((*DPO, *LORA, "dpo.reference=live"), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_same_run(tuned, tmp_path, changes):
    assert train(tuned(*changes), tmp_path / "whole") == 0
    # As if it had been killed after step 3.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/6")
    assert train(tuned(*changes), tmp_path / "cut") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.fixture(scope="module")
def fine_tuned(tuned, tmp_path_factory):
    """The workdir of a fine-tuning run."""
    workdir = tmp_path_factory.mktemp("fine_tuned")
    assert train(tuned(*SFT), workdir) == 0
    return workdir


def test_losses_are_told_apart_by_language(fine_tuned):
    row = figures(fine_tuned)[-1]
    assert {"loss/talk", "loss/talk/en", "loss/talk/de", "loss/talk/kk"} <= set(row)
    counts = [row[f"tokens/talk/{code}"] for code in LANGUAGES]
    losses = [row[f"loss/talk/{code}"] for code in LANGUAGES]
    assert sum(counts) == row["tokens/talk"]
    assert np.average(losses, weights=counts) == pytest.approx(row["loss"], rel=1e-5)
    assert row["padding"] < 0.2


def test_an_export_talks_as_it_was_taught(fine_tuned, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert main(["export", f"--model={fine_tuned}", f"--out={tmp_path / 'hf'}"]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    said = tokenizer.apply_chat_template([{"role": "user", "content": "run"}], tokenize=False)
    assert said.endswith("<|im_start|>user\nrun<|im_end|>\n")
    generation = json.loads((tmp_path / "hf/generation_config.json").read_text())
    ends = ["<|im_end|>", "<|endoftext|>"]
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids(ends)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["sigmoid", "simpo"])
def test_preferences_are_learnt(tuned, tmp_path, variant):
    changes = (f"dpo.variant={variant}", "steps=40", "batch.length=320")
    assert train(tuned(*DPO, *changes), tmp_path / "dpo") == 0
    rows = figures(tmp_path / "dpo")
    assert {"reward_margin", "reward_accuracy", "reward_accuracy/choices/kk"} <= set(rows[0])
    assert ("kl" in rows[0]) == (variant == "sigmoid")
    if variant == "sigmoid":
        assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-3)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.02
    assert rows[-1]["reward_margin"] > rows[0]["reward_margin"]


ASKED = {"role": "user", "content": "run"}


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("chat", {"messages": [ASKED]}, "has no assistant message after a user's"),
        (
            "chat",
            {"messages": [ASKED, {"role": "robot", "content": "run"}]},
            "has a message of role 'robot': write user, assistant, system, tool",
        ),
        ("chat", {"text": "run"}, "has no conversation"),
        ("preference", {"prompt": "run", "chosen": "run"}, "has no preference"),
        ("preference", {"prompt": "run", "rejected": "run"}, "has no preference"),
    ],
)
def test_what_cannot_be_learnt_from_is_named_by_file_and_line(
    root, overrides, base, tmp_path, capsys, kind, row, message
):
    right = next(conversations() if kind == "chat" else preferences())
    lines = "".join(json.dumps(entry) + "\n" for entry in (right, row))
    (tmp_path / "rows.jsonl").write_text(lines)
    source = {"name": "rows", "kind": kind, "files": "rows.jsonl"}
    (tmp_path / "data.json").write_text(json.dumps({"sources": [source]}))
    given = [*overrides, *(SFT if kind == "chat" else DPO), f"data={tmp_path / 'data.json'}"]
    flags = [f"--config.{change}" for change in (*given, f"init_from={base}")]
    command = ["train", f"--config={root / 'configs/demo.py'}", f"--workdir={tmp_path / 'run'}"]
    assert main([*command, *flags]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "rows.jsonl" in said and "2" in said and message in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("objective=ppo",), "objective is 'ppo': choose one of cpt, sft, dpo"),
        ((*SFT, "mixture.name=preference"), "no sources of kind preference"),
        ((*DPO, "mixture.name=chat"), "sources of kind preference alone"),
        ((*DPO, "dpo.variant=best"), "dpo.variant is 'best': choose one of sigmoid"),
        ((*DPO, "dpo.beta=0"), "dpo.beta is 0.0: it must be above zero"),
        ((*DPO, "init_from="), "init_from is empty"),
        ((*SFT, "lora.rank=4", "lora.targets=embed"), "lora.targets names 'embed'"),
    ],
)
def test_fields_that_do_not_fit_are_refused(tuned, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(tuned(*changes), tmp_path / "run")


@pytest.mark.slow
def test_instructions_are_asked_in_chat_while_it_trains(tuned, tmp_path):
    folder = tmp_path / "benchmarks/marco_bench_mif"
    folder.mkdir(parents=True)
    asked = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    lines = (json.dumps({"key": n, "prompt": f"{n} шақырым?"} | asked) for n in range(6))
    (folder / "kk.jsonl").write_text("\n".join(lines), "utf-8")
    fields = ("tasks=marco_bench_mif", "every_tasks=", "at_start=False", "chat=True")
    fields += (f"data_dir={folder.parent}", "max_new_tokens=8", "languages=kk")
    workdir = tmp_path / "run"
    assert train(tuned(*SFT, *(f"evaluation.{field}" for field in fields)), workdir) == 0
    inside = json.loads((workdir / "eval/6.json").read_text("utf-8"))
    metrics = {row["metric"] for row in inside if row["language"] == "kk"}
    assert {"prompt_level_strict_acc", "inst_level_loose_acc"} <= metrics
    # The stand-alone command asks as the run did.
    assert main(["eval", f"--model={workdir}", f"--out={tmp_path / 'alone.json'}"]) == 0
    assert json.loads((tmp_path / "alone.json").read_text("utf-8")) == inside
