"""The comparison of two stages with one: what it would train, without training."""

import re

from experiments.mixture_ablation import two_stages


def flags(root, data, tmp_path):
    return [
        f"--config={root / 'configs/mixture_ablation.py'}",
        f"--workdir={tmp_path / 'stages'}",
        "--seeds=2",
        f"--config.data={data / 'corpus.jsonl'}",
        f"--config.tokenizer.path={data / 'tokenizer'}",
    ]


def test_a_dry_run_shows_each_arm_and_leaves_nothing(root, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(two_stages, "train", None)
    assert two_stages.main([*flags(root, data, tmp_path), "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "3 arms with 2 seeds each: 6 runs" in text
    stages, naive, flat = re.split(r"^## ", text, flags=re.M)[1:]
    tokens = [re.search(r"stages: .*, ([\d,]+) in all", part)[1] for part in (stages, naive, flat)]
    assert len(set(tokens)) == 1
    assert "of mixture stage1" in stages and "of mixture stage2" in stages
    assert re.search(r"^ +kk +50", naive, re.M) and re.search(r"^ +en +0", naive, re.M)
    assert "of mixture flat" in flat
    assert not (tmp_path / "stages").exists()


def test_bad_fields_end_a_dry_run_in_one_line(root, data, tmp_path, capsys):
    argv = [*flags(root, data, tmp_path), "--dry_run", "--config.data=nowhere"]
    assert two_stages.main(argv) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("two_stages: ")
