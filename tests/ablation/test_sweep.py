"""A sweep without training: what runs, what it leaves behind, and how it goes on."""

import csv
import dataclasses
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.ablation import propose as propose_module
from marco_jax.ablation import sweep as sweep_module
from marco_jax.ablation.components import find_components
from marco_jax.ablation.run_metrics import target_values
from marco_jax.ablation.sweep_config import parse_shares, resolve_targets
from marco_jax.data.mixtures import get_mixture
from marco_jax.data.overrides import apply_override
from marco_jax.data.texts import SourceInfo
from marco_jax.evaluation.results import Result, write_results
from marco_jax.training.config import ConfigError, load_config

# Of the corpus of conftest.py.
CODES = ("en", "zh", "de", "kk", "ne")
SOURCES = [
    *(SourceInfo(code, "text", code) for code in ("en", "zh", "de", "fr", "kk", "ne", "he")),
    SourceInfo("parallel", "parallel"),
    SourceInfo("knowledge", "knowledge"),
]
SHARES = get_mixture("flat", SOURCES).shares


class Died(BaseException):
    """Stands for kill -9: nothing after it runs."""


@pytest.fixture
def arguments(root, data, tmp_path):
    """A small sweep's command line."""
    return [
        "sweep",
        f"--config={root / 'configs/mixture_ablation.py'}",
        f"--workdir={tmp_path / 'sweep'}",
        f"--config.data={data / 'corpus.jsonl'}",
        f"--config.tokenizer.path={data / 'tokenizer'}",
        "--config.sweep.units=sources",
        "--config.sweep.runs=16",
        "--config.sweep.max_epochs=1000000",
        "--config.sweep.draws=20",
        "--config.sweep.confirm.seeds=2",
    ]


class FakeTraining:
    """Writes metrics that follow from the mixture; may die or fail at a run.

    `spoil` replaces the results of a run, given its name and its results.
    """

    def __init__(self, sources, *, die_at=None, fail=(), spoil=None):
        self.sources, self.die_at, self.fail, self.ran = sources, die_at, fail, []
        self.spoil = spoil or (lambda name, results: results)

    def __call__(self, config, workdir):
        name = pathlib.Path(workdir).name
        self.ran.append(name)
        if name == self.die_at:
            raise Died
        if name in self.fail:
            raise RuntimeError("the disk is full")
        assert "sweep" not in config
        first = config.mixture.name.split(",")[0]
        shares = apply_override(
            get_mixture(first, self.sources).shares, config.mixture.override, self.sources
        )
        results = [
            Result("bits_per_byte", code, 0, "bits_per_byte",
                   1 + np.exp(-3 * share) + 0.5 * shares["en"] * (code == "kk"), 0.01, 9)
            for code, share in shares.items()
        ]  # fmt: skip
        results = self.spoil(name, results)
        write_results(pathlib.Path(workdir) / "eval" / f"{config.steps}.json", results)
        rows = [{"step": step, "step_seconds": 0.25} for step in range(1, config.steps + 1)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (pathlib.Path(workdir) / "metrics.jsonl").write_text(lines, "utf-8")
        return 0


@pytest.fixture
def fake(monkeypatch):
    """Replaces training by a FakeTraining."""

    def use(**faults):
        training = FakeTraining([SourceInfo(c, "text", c) for c in CODES], **faults)
        # Fewer draws behind the bounds, for speed.
        monkeypatch.setattr(propose_module, "_BOUND_DRAWS", 200)
        monkeypatch.setattr(sweep_module, "train", training)
        return training

    return use


def table_of(workdir):
    with open(workdir / "runs.csv", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_sweep_runs_fits_proposes_confirms_and_reports(fake, arguments, tmp_path, capsys):
    training = fake()
    assert main(arguments) == 0
    workdir = tmp_path / "sweep"
    assert len(training.ran) == 17 + 4 and training.ran[:2] == ["prior", "uniform"]
    table = table_of(workdir)
    assert len(table) == 18 and table[-1][0] == "two_stages"
    analysis = json.loads((workdir / "analysis.json").read_text("utf-8"))
    assert analysis["fits"]["bits_per_byte/bits_per_byte/kk"]["rank_correlation"] > 0.8
    proposal = analysis["proposal"]
    breaks = proposal["breaks"]
    assert set(breaks) == set(analysis["objective"]["bounds"]) and max(breaks.values()) <= 0.1
    assert proposal["weights"]["kk"] > analysis["prior"]["kk"]
    confirmation = json.loads((workdir / "confirmation.json").read_text("utf-8"))
    assert confirmation["steps"] == 200 and len(confirmation["changes"][0]["measured"]) == 2
    page = (workdir / "report.html").read_text("utf-8")
    for title in (
        "Mixture",
        "What a point more does",
        "Predicted against measured",
        "Confirmation",
    ):
        assert title in page
    assert "probability that it breaks" in page
    text = capsys.readouterr().out
    assert "bound +1.00% on bits_per_byte/bits_per_byte/en: broken with a probability of" in text
    assert "hold together with a probability of 90% or more" in text
    command = re.search(r"ready to run: (.*)", text)[1]
    override = re.search(r"--config.mixture.override=(\S+)", command)[1]
    sources = [SourceInfo(code, "text", code) for code in CODES]
    made = apply_override(get_mixture("flat", sources).shares, override, sources)
    assert all(abs(made[component] - w) < 1e-4 for component, w in proposal["weights"].items())


def test_a_dry_run_says_what_it_costs_and_runs_nothing(fake, arguments, tmp_path, capsys):
    training = fake()
    assert main([*arguments, "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert training.ran == ["trial0", "trial1"]
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == [".lock", "data"]
    assert re.search(r"17 runs of 100 steps, [\d,]+ tokens each: [\d,]+ tokens", text)
    assert "confirmation: 4 runs" in text and "prior" in text and "two_stages" in text
    assert re.search(
        r"about \d+ (s|min), and \d+ (s|min) to confirm \(measured here: 0.25 s a step", text
    )


def test_a_dry_run_tries_runs_of_one_shape(fake, arguments, tmp_path, monkeypatch):
    """The run with two stages is not among those that train at once."""
    fake()
    tried = []

    def time_runs(config, proxies, root, train, lanes):
        tried.extend((lanes, proxy.name) for proxy in proxies)

    monkeypatch.setattr(sweep_module, "time_runs", time_runs)
    at_once = ["--config.sweep.parallel=vmap", "--config.sweep.lanes=8"]
    # As after a SIGTERM, since nothing was measured.
    assert main([*arguments, *at_once, "--dry_run"]) == 143
    assert len(tried) == 16 and (8, "two_stages") not in tried


def test_a_dry_run_of_runs_that_fail_says_why(fake, arguments, tmp_path, capsys):
    fake(fail=("trial0",))
    assert main([*arguments, "--dry_run"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "a run of 6 steps has failed: RuntimeError: the disk is full" in error
    assert not (tmp_path / "sweep/trial").exists()


@pytest.mark.slow
def test_a_sweep_starts_beside_a_folder_of_the_users_named_experiments(root, arguments, tmp_path):
    (tmp_path / "experiments").mkdir()
    # Whatever an installation finds beside it: importing it is what must not happen.
    own = "raise RuntimeError('the experiments of the user were imported')"
    (tmp_path / "experiments/__init__.py").write_text(own, "utf-8")
    flags = ["--workdir=sw" if a.startswith("--workdir=") else a for a in arguments]
    ran = subprocess.run(
        [sys.executable, "-m", "marco_jax", *flags, "--dry_run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "17 runs of 100 steps" in ran.stdout and (tmp_path / "sw/data").is_dir()


def test_a_killed_sweep_goes_on_and_ends_with_the_same_table(fake, arguments, tmp_path):
    fake()
    assert main(arguments) == 0
    whole = table_of(tmp_path / "sweep")
    other = [a.replace(str(tmp_path / "sweep"), str(tmp_path / "killed")) for a in arguments]
    fake(die_at="random005")
    with pytest.raises(Died):
        main(other)
    training = fake()
    assert main(other) == 0
    assert training.ran[0] == "random005"
    assert table_of(tmp_path / "killed") == whole


def test_a_run_that_fails_does_not_sink_the_others(fake, arguments, tmp_path, capsys):
    fake(fail=("random003",))
    assert main(arguments) == 0
    assert "random003 has failed: RuntimeError: the disk is full" in capsys.readouterr().err
    assert "random003" not in [row[0] for row in table_of(tmp_path / "sweep")]
    training = fake()
    assert main(arguments) == 0
    assert training.ran[0] == "random003"
    assert "random003" in [row[0] for row in table_of(tmp_path / "sweep")]


def test_a_bad_metric_leaves_out_one_run_of_one_fit(fake, arguments, tmp_path, capsys):
    bad = {("random003", "kk"): math.nan, ("random004", "ne"): 0.0, ("random005", "en"): None}

    def spoil(name, results):
        values = [(r, bad.get((name, r.language), r.value)) for r in results]
        return [dataclasses.replace(r, value=value) for r, value in values if value is not None]

    fake(spoil=spoil)
    assert main([*arguments, "--config.sweep.confirm.seeds=0"]) == 0
    text = capsys.readouterr().out
    target = "bits_per_byte/bits_per_byte"
    assert f"{target}/kk of random003 is nan" in text
    assert f"{target}/ne of random004 is 0" in text
    assert f"{target}/en of random005 is missing" in text
    analysis = json.loads((tmp_path / "sweep/analysis.json").read_text("utf-8"))
    assert len(analysis["faults"]) == 3 and analysis["proposal"]["weights"]
    left_out = {code: analysis["fits"][f"{target}/{code}"]["left_out"] for code in CODES}
    assert [len(left_out[code]) for code in CODES] == [15, 16, 16, 15, 15]
    assert "random003" not in left_out["kk"] and "random003" in left_out["ne"]
    page = (tmp_path / "sweep/report.html").read_text("utf-8")
    assert "random004 is 0" in page


def test_bounds_of_trees_are_on_the_estimate(fake, arguments, monkeypatch, tmp_path, capsys):
    pytest.importorskip("lightgbm")
    from marco_jax.ablation import trees

    monkeypatch.setattr(trees, "_CANDIDATES", 500)
    monkeypatch.setattr(trees, "_BOOTSTRAP", 3)
    fake()
    flags = ["--config.sweep.fit=lightgbm", "--config.sweep.confirm.seeds=0"]
    loose = "--config.sweep.bounds=en=0.5"
    assert main([*arguments, *flags, loose, "--config.sweep.runs=32"]) == 0
    text = capsys.readouterr().out
    assert "bounds are on the estimates of sweep.fit='lightgbm'" in text
    analysis = json.loads((tmp_path / "sweep/analysis.json").read_text("utf-8"))
    assert analysis["bounds_on"] == "estimate" and analysis["trade_off"] == []


def test_a_bound_that_cannot_be_fitted_ends_in_one_line(fake, arguments, capsys):
    def spoil(name, results):
        lost = name.startswith("random")
        return [
            dataclasses.replace(r, value=math.nan) if lost and r.language == "en" else r
            for r in results
        ]

    fake(spoil=spoil)
    assert main([*arguments, "--config.sweep.confirm.seeds=0"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "sweep.bounds: bits_per_byte/bits_per_byte/en cannot be fitted" in line
    assert "2 of 16 runs" in line


@pytest.mark.slow
def test_accuracies_may_be_targets_beside_bits_per_byte(fake, arguments, tmp_path, capsys):
    rng = np.random.default_rng(0)

    def spoil(name, results):
        found = list(results)
        for result in results:
            rate = min(0.99, 0.3 * result.value)
            right = rng.binomial(2000, 1 - rate) / 2000
            error = (right * (1 - right) / 2000) ** 0.5
            found.append(
                Result("pick_translation", result.language, 5, "accuracy", right, error, 2000)
            )
        return found

    fake(spoil=spoil)
    mixed = [
        "--config.evaluation.tasks=bits_per_byte,pick_translation",
        "--config.sweep.targets=bits_per_byte,pick_translation/accuracy",
        "--config.sweep.objective=ne,pick_translation/accuracy/kk=2",
        "--config.sweep.bounds=en=0.02,pick_translation/accuracy/en=0.1",
        "--config.sweep.confirm.seeds=0",
    ]
    assert main([*arguments, *mixed]) == 0
    analysis = json.loads((tmp_path / "sweep/analysis.json").read_text("utf-8"))
    objective = analysis["objective"]
    assert objective["targets"] == {
        "bits_per_byte/bits_per_byte/ne": 1.0,
        "pick_translation/accuracy/kk": 2.0,
    }
    assert analysis["proposal"]["weights"]["kk"] > analysis["prior"]["kk"]
    breaks = analysis["proposal"]["breaks"]
    assert set(breaks) == set(objective["bounds"]) and max(breaks.values()) <= 0.1
    assert (
        "on pick_translation/accuracy/en: broken with a probability of" in capsys.readouterr().out
    )


def test_a_run_that_takes_the_process_with_it_is_left_out_in_the_end(fake, arguments, tmp_path):
    for _ in range(3):
        fake(die_at="random001")
        with pytest.raises(Died):
            main(arguments)
    training = fake()
    assert main(arguments) == 0
    assert "random001" not in training.ran


@pytest.mark.slow
def test_a_sweep_whose_runs_would_be_others_is_refused(fake, arguments, tmp_path, capsys):
    fake()
    assert main([*arguments, "--config.sweep.confirm.seeds=0"]) == 0
    assert main([*arguments, "--config.steps=50"]) == 2
    assert "steps: 100 -> 50" in capsys.readouterr().err
    # What belongs to the fit may change.
    free = ["--config.sweep.confirm.seeds=0", "--config.sweep.bounds=en=0.1"]
    assert main([*arguments, *free]) == 0
    # A sweep that was started before a size became a field has its default.
    path = tmp_path / "sweep" / sweep_module.PLAN
    plan = json.loads(path.read_text())
    del plan["config"]["model"]["qk_norm"]
    path.write_text(json.dumps(plan))
    assert main([*arguments, *free]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tokenizer.path=", "init_from is empty"),
        ("sweep.units=klingon", "klingon"),
        ("sweep.objective=xx", "sweep.objective"),
        ("sweep.bounds=en", "sweep.bounds"),
        ("sweep.targets=belebele", "belebele"),
        ("sweep.fit=forest", "log-linear"),
        ("sweep.bound_quantile=1.2", "sweep.bound_quantile is 1.2"),
        ("sweep.max_epochs=0.001", "sweep.max_epochs"),
        ("mixture.override=kk=0.1", "mixture.override"),
    ],
)
def test_bad_fields_end_in_one_line(fake, arguments, capsys, change, message):
    training = fake()
    assert main([*arguments, f"--config.{change}"]) == 2
    assert not training.ran
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_config_without_a_sweep_is_refused(root, tmp_path, capsys):
    argv = ["sweep", f"--config={root / 'configs/demo.py'}", f"--workdir={tmp_path}"]
    assert main(argv) == 2
    assert "config.sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("groups", {"English": ("en",), "low-resource": ("kk", "ne", "he")}),
        ("kk,low-resource", {"kk": ("kk",), "low-resource": ("ne", "he"), "English": ("en",)}),
        ("en+zh,parallel+knowledge", {"en+zh": ("en", "zh"), "low-resource": ("kk", "ne", "he")}),
        ("sources", {"fr": ("fr",), "parallel": ("parallel",)}),
    ],
)
def test_components(text, expected):
    components = find_components(text, SHARES, SOURCES)
    for name, members in expected.items():
        assert set(components.members[name]) == set(members)
    assert sorted(s for own in components.members.values() for s in own) == sorted(SHARES)
    assert sum(components.prior.values()) == pytest.approx(1)
    weights = np.random.default_rng(0).dirichlet(np.ones(len(components.members)))
    made = apply_override(SHARES, components.override(weights), SOURCES)
    wanted = components.source_shares(weights)
    assert made == pytest.approx(wanted, abs=2e-4)


def test_a_group_around_another_component_is_overridden_by_its_name():
    components = find_components("kk,low-resource", SHARES, SOURCES)
    weights = dict.fromkeys(components.members, 0.1) | {"low-resource": 0.2}
    weights["English"] += 1 - sum(weights.values())
    override = components.override(list(weights.values()))
    assert override.startswith("kk=0.1,low-resource=0.3,")
    made = apply_override(SHARES, override, SOURCES)
    assert made == pytest.approx(components.source_shares(list(weights.values())), abs=1e-6)


def test_caps_follow_from_the_source_that_runs_out_first():
    components = find_components("low-resource", SHARES, SOURCES)
    tokens = {"kk": 1000.0, "ne": 100.0, "he": 1000.0}
    caps = dict(zip(components.members, components.caps(tokens, 10_000, 4), strict=True))
    # A third of the component is Nepali: 400 tokens of it are 1,200 of the component.
    assert caps["low-resource"] == pytest.approx(0.12)
    assert caps["English"] == 1


def test_shares_and_targets():
    assert parse_shares("kk=2, ne", "f", 1.0) == {"kk": 2.0, "ne": 1.0}
    targets = [f"bits_per_byte/bits_per_byte/{c}" for c in ("en", "kk", "ne")] + ["b/accuracy/kk"]
    found = resolve_targets({"low-resource": 1.0, "b/accuracy/kk": 0.5}, targets, "f")
    assert found == {targets[1]: 0.5, targets[2]: 0.5, "b/accuracy/kk": 0.5}
    with pytest.raises(ConfigError, match="did you mean"):
        resolve_targets({"low-resourc": 1.0}, targets, "f")


def test_figures_are_such_that_lower_is_better():
    rows = [
        Result("belebele", "kk", 5, "accuracy", 0.7, 0.1, 9),
        Result("translation", "kk", 3, "chrf++", 30.0, 1.0, 9),
        Result("bits_per_byte", "kk", 0, "bits_per_byte", 1.5, 0.1, 9),
    ]
    values = list(target_values(rows).values())
    assert values == pytest.approx([0.3, 70.0, 1.5])


def test_the_config_is_an_ordinary_training_config(root):
    config = load_config(str(root / "configs/mixture_ablation.py"))
    assert config.mixture.name == "flat" and config.sweep.bounds == "en=0.01,zh=0.01"
