"""Reinforcement learning runs: that they learn, resume exactly, and what they refuse."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from marco_jax.files import read_json_lines
from marco_jax.reports.run_data import load_run, read_metrics
from marco_jax.reports.run_page import write_report
from marco_jax.training.checks import check_config
from marco_jax.training.clock import CLOCKED
from marco_jax.training.loop import train
from marco_jax.weights.models import load_model
from tests.processes import run_processes

pytestmark = pytest.mark.usefixtures("compiled_once")

WORDS = {
    "en": "the run saves its state and the next step reads a new batch",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін",
}
GRPO = ("objective=grpo", "mixture.name=prompt", "stages=stage1", "batch.length=128")
SMALL = (
    *("grpo.prompts=4", "grpo.group=4", "grpo.max_prompt_tokens=90", "grpo.max_new_tokens=8"),
    *("batch.sequences_per_chip=4", "batch.accumulation_steps=2"),
)
LORA = ("lora.rank=4", "lora.base_dtype=float32")


def short_words(rows, answers):
    """Rewards answers whose words are short; a row may spoil its answers."""
    sizes = [np.mean([len(word) for word in answer.split() or ["x" * 40]]) for answer in answers]
    spoilt = [bool(row.get("spoilt")) for row in rows]
    return [float("nan") if bad else -size for bad, size in zip(spoilt, sizes, strict=True)]


def letters(rows, answers):
    """The share of an answer's characters that is "a"."""
    return [answer.count("a") / max(1, len(answer)) for answer in answers]


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
    sources = [{"name": "ask", "kind": "prompt", "files": "prompts.jsonl", "held_out": 0.0}]
    (directory / "data.json").write_text(json.dumps({"sources": sources}))
    return directory / "data.json"


@pytest.fixture(scope="module")
def rewarded(small_config, base, data):
    """Makes the config of a run from the base."""

    def make(*changes):
        given = (f"init_from={base}", f"data={data}", "steps=4", "log_every=1")
        scorer = f"grpo.rewards={__file__}:short_words"
        return small_config(*given, "checkpoint.every=3", *GRPO, *SMALL, scorer, *changes)

    return make


def lines_of(workdir):
    rows = read_metrics(pathlib.Path(workdir) / "metrics.jsonl")
    kept = ("cut_share", "alike_share", "unused_share", "clip_share")
    return [
        {k: v for k, v in row.items() if k.startswith(kept) or not k.endswith(CLOCKED)}
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


def test_it_learns_what_is_rewarded(rewarded, tmp_path):
    changes = ("steps=12", "grpo.prompts=8", f"grpo.rewards={__file__}:letters")
    rate = "stage.stage1.learning_rate=0.02"
    assert train(rewarded(*changes, rate, "checkpoint.every=0"), tmp_path) == 0
    rows = read_metrics(tmp_path / "metrics.jsonl")
    rewards = [row["reward"] for row in rows]
    assert np.mean(rewards[-3:]) > 2 * np.mean(rewards[:3])
    assert {"reward/ask/en", "reward/ask/kk", "entropy/ask/kk", "clip_share"} <= set(rows[0])
    assert 0 < rows[-1]["sampling_share"] < 1
    seconds = load_run(tmp_path).seconds()
    assert 0 < seconds["sampling"] < sum(row["step_seconds"] for row in rows)
    page = write_report(tmp_path).read_text("utf-8")
    assert all(f'id="{name}"' in page for name in ("reward", "entropy", "answer_tokens"))
    # The file has what the metrics say, and each prompt's answers stand together.
    answers = read_json_lines(tmp_path / "answers/000011.jsonl")
    assert np.mean([line["reward"] for line in answers]) == pytest.approx(rewards[-1])
    assert [line["prompt"] for line in answers[:4]] == [answers[0]["prompt"]] * 4
    for start in range(0, len(answers), 4):
        assert sum(line["advantage"] for line in answers[start : start + 4]) == pytest.approx(
            0, abs=1e-5
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("init_from=",), "objective is 'grpo' and init_from is empty"),
        (("grpo.group=1",), "grpo.group is 1: write 2 or more"),
        (("grpo.updates=3",), "grpo.updates is 3 and a round has 16 answers"),
        (("grpo.scale=std",), "grpo.scale is 'std': choose one of group, batch, none"),
        (("grpo.average=mean",), "grpo.average is 'mean': choose one of"),
        (("grpo.rewards=chrf+",), "grpo.rewards: scorer 'chrf\\+' is unknown"),
    ],
)
def test_fields_that_no_run_could_have_are_refused(rewarded, changes, says):
    with pytest.raises(ValueError, match=says):
        check_config(rewarded(*changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("grpo.prompts=64",), "has room for 32: raise batch.length"),
        (("grpo.max_prompt_tokens=2",), "ask has no prompt of up to 2 tokens"),
        (("grpo.rewards=bleu,instructions",), "grpo.rewards, instructions: row 1 has no list"),
        (("mixture.name=chat",), "mixture 'chat': the data has none of its sources"),
        (("objective=sft",), "no sources of kind prompt"),
    ],
)
def test_what_the_data_does_not_allow_is_refused(rewarded, tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        train(rewarded(*changes), tmp_path)


@pytest.mark.slow
def test_a_round_whose_answers_are_gone_is_named(rewarded, tmp_path):
    assert train(rewarded("grpo.updates=2"), tmp_path) == 0
    shutil.rmtree(tmp_path / "checkpoints/4")
    (tmp_path / "answers/000001.jsonl").unlink()
    with pytest.raises(ValueError, match="000001.jsonl is not there: step 1 of round 1 needs"):
        train(rewarded("grpo.updates=2"), tmp_path)


@pytest.mark.slow
def test_two_processes_sample_and_learn_as_one_does(rewarded, base, data, tmp_path):
    """The same samples in the first round; later ones as far as sums in another order allow."""
    given = [f"{name}={value}" for name, value in (("init_from", base), ("data", data))]
    config = rewarded("grpo.updates=2", "mesh.tensor=1", "batch.sequences=32")
    fields = {"grpo": config.grpo, "model": config.model, "batch": config.batch}
    given += [f"{group}.{k}={v}" for group, own in fields.items() for k, v in own.items()]
    names = ("objective", "steps", "stages", "log_every")
    given += [*(f"{name}={config[name]}" for name in names), "mixture.name=prompt"]
    given += ["checkpoint.every=3", "evaluation.tasks=", "feed.workers=0", "mesh.tensor=1"]
    fields = [f"--config.{field}" for field in given]
    for name, processes, devices in (("alone", 1, 4), ("both", 2, 2)):
        command = ["train", "--config=configs/demo.py", f"--workdir={tmp_path / name}", *fields]
        run_processes(command, processes, devices)
    first, second = (
        read_json_lines(tmp_path / n / "answers/000000.jsonl") for n in ("alone", "both")
    )
    for a, b in zip(first, second, strict=True):
        assert {**a, "logps": 0} == {**b, "logps": 0}
        np.testing.assert_allclose(a["logps"], b["logps"], atol=1e-5)
    one, two = (read_metrics(tmp_path / n / "metrics.jsonl") for n in ("alone", "both"))
    for name in ("loss", "reward", "entropy", "grad_norm"):
        np.testing.assert_allclose(one[0][name], two[0][name], rtol=1e-4, atol=1e-6)
