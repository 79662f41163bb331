"""Studies of mixtures whose arms are trained from one base."""

import json
import re

import pytest

from experiments.mixture_ablation import adaptive, arms, two_stages
from marco_jax.training.config import load_config
from marco_jax.training.loop import train
from tests.ablation.small import small_runs


def flags(root, folder, tmp_path, **fields):
    fields = {
        "data": folder / "corpus.jsonl",
        "tokenizer.path": folder / "tokenizer",
    } | fields
    return [
        f"--config={root / 'configs/mixture_ablation.py'}",
        f"--workdir={tmp_path / 'study'}",
        "--seeds=2",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def test_a_dry_run_shows_each_arm_and_leaves_nothing(root, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(arms, "train", None)
    assert two_stages.main([*flags(root, data, tmp_path), "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "3 arms with 2 seeds each: 6 runs" in text
    stages, naive, flat = re.split(r"^## ", text, flags=re.M)[1:]
    tokens = [re.search(r"stages: .*, ([\d,]+) in all", part)[1] for part in (stages, naive, flat)]
    assert len(set(tokens)) == 1
    assert "of mixture stage1" in stages and "of mixture stage2" in stages
    assert re.search(r"^ +kk +50", naive, re.M) and re.search(r"^ +en +0", naive, re.M)
    assert "of mixture flat" in flat
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("study", [two_stages, adaptive])
def test_bad_fields_end_a_dry_run_in_one_line(study, root, data, tmp_path, capsys):
    argv = [*flags(root, data, tmp_path), "--dry_run", "--config.data=nowhere"]
    assert study.main(argv) == 2
    name = study.__name__.rpartition(".")[2]
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"{name}: ")


@pytest.mark.slow
def test_adaptive_and_fixed_weights_are_compared_seed_by_seed(root, data, tmp_path, capsys):
    fields = small_runs(data) | {"steps": 60, "batch.sequences_per_chip": 2}
    assert adaptive.main(flags(root, data, tmp_path, **fields)) == 2
    assert "init_from is not set" in capsys.readouterr().err
    overrides = [f"{name}={value}" for name, value in (fields | {"steps": 1}).items()]
    train(load_config(str(root / "configs/mixture_ablation.py"), overrides), tmp_path / "base")
    fields["init_from"] = tmp_path / "base"
    assert adaptive.main(flags(root, data, tmp_path, **fields)) == 0
    found = json.loads((tmp_path / "study/adaptive.json").read_text())
    for code, changes in found["changes"].items():
        if code in found["before"]:
            pairs = zip(found["adaptive"], found["fixed"], strict=True)
            assert changes == pytest.approx([mine[code] / its[code] - 1 for mine, its in pairs])
    # After four points of each source weights have moved, in each seed.
    shares = found["shares"]
    assert sum(source["configured"] for source in shares.values()) == pytest.approx(1)
    for number in range(2):
        last = {name: source["last"][number] for name, source in shares.items()}
        assert sum(last.values()) == pytest.approx(1)
        assert any(last[name] != pytest.approx(shares[name]["configured"]) for name in last)
    assert "| source | configured | adaptive, at the end |" in capsys.readouterr().out
