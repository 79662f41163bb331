"""A language outside the paper's 29 trains, is mixed, evaluated and reported with one field."""

import json
import random

import pytest

from marco_jax.__main__ import main
from marco_jax.languages import LANGUAGES
from marco_jax.reports.run_data import group_of, load_run, name_of, read_metrics
from marco_jax.training.loop import train

TEXTS = {
    "en": "the run saves its state and the next step reads a new batch of text",
    "sw": "programu inahifadhi hali yake na hatua inayofuata inasoma maandishi mapya",
}
FIELDS = (
    "steps=4",
    "stages=stage1",
    "mixture.name=flat",
    "mixture.override=low-resource=0.5",
    "evaluation.tasks=bits_per_byte",
)
EXTRA = "languages.extra=sw:Swahili:low"


@pytest.fixture(scope="module")
def swahili(tmp_path_factory):
    """A corpus of English and Swahili."""
    rng, rows = random.Random(0), []
    for number in range(120):
        for code, text in TEXTS.items():
            words = " ".join(rng.choices(text.split(), k=rng.randint(5, 25)))
            rows.append(json.dumps({"id": f"text {number}", "language": code, "text": words}))
    path = tmp_path_factory.mktemp("swahili") / "corpus.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.mark.usefixtures("only_here")
def test_swahili_is_trained_mixed_evaluated_and_reported(small_config, swahili, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert train(small_config(*FIELDS, f"data={swahili}", EXTRA), workdir) == 0
    rows = read_metrics(workdir / "metrics.jsonl")
    assert any("loss/sw" in row for row in rows)
    mixture = json.loads((workdir / "mixture.json").read_text())
    assert mixture["stages"][0]["shares"] == pytest.approx({"en": 0.5, "sw": 0.5})
    evaluated = {
        row["language"]: row["value"] for row in json.loads((workdir / "eval/4.json").read_text())
    }
    assert evaluated["sw"] == evaluated["low"] > 0

    # Other commands read the language from the workdir.
    del LANGUAGES["sw"]
    out = tmp_path / "out.json"
    assert main(["eval", f"--model={workdir}", f"--out={out}", "--languages=sw"]) == 0
    alone = {row["language"]: row["value"] for row in json.loads(out.read_text())}
    assert alone["sw"] == pytest.approx(evaluated["sw"], abs=1e-4)
    del LANGUAGES["sw"]
    assert load_run(workdir).languages("bits_per_byte") == ["en", "sw"]
    assert (name_of("sw"), group_of("sw")) == ("Swahili", "low")


def test_without_the_field_the_remedy_is_named(small_config, swahili, tmp_path):
    with pytest.raises(ValueError, match="language 'sw' is unknown: .*languages.extra adds"):
        train(small_config(*FIELDS, f"data={swahili}"), tmp_path)
    with pytest.raises(ValueError, match="languages.extra: 'sw:Swahili' is not of the form"):
        train(small_config(*FIELDS, "languages.extra=sw:Swahili"), tmp_path)
