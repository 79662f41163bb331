"""The study from a published base: every command is one that `marco` takes, and it goes on."""

import json
import pathlib
import sys

import pytest

from experiments.real_base import __main__ as study
from experiments.real_base import commands, tables
from marco_jax.commands.parser import create_parser
from marco_jax.data.corpus import SourceInfo
from marco_jax.data.mixtures import get_mixture
from marco_jax.data.overrides import apply_override
from marco_jax.evaluation.results import Result, write_results
from marco_jax.files import write_json
from marco_jax.languages import LANGUAGES
from marco_jax.training.checks import check_config
from marco_jax.training.config import load_config, plan_stages

PATHS = commands.Paths("hf", "corpus", "files", pathlib.Path("work"))
DIFFERENCE = {"language": "kk", "metric": "bits_per_byte", "items": 24, "first": 2.0604}
DIFFERENCE |= {"difference": -0.0312, "stderr": 0.0041}
STUDIED = commands.TRAINED.split(",")


def steps(paths=PATHS, parts=study.PARTS, seeds=1):
    return list(study.plan(paths, parts, "cpu", seeds, []))


def test_every_command_is_one_that_marco_takes():
    parser = create_parser()
    for command, _ in steps():
        plain = [word for word in command if not word.startswith("--config.")]
        parser.parse_args(plain)
    for question in (*commands.PAIRED, *commands.ALONE):
        place = "corpus" if "bits" in question.name or question.name == "translation" else "files"
        assert f"--data_dir={place}" in commands.ask(PATHS, commands.BASE, question)
    # Nothing is done twice, and every arm is asked what the base was asked.
    done = [path for _, path in steps(seeds=3)]
    assert len(done) == len(set(done))


@pytest.mark.parametrize("device", commands.DEVICES)
@pytest.mark.parametrize("arm", commands.arm_names(1))
def test_arms_train_on_the_shares_of_table_2(arm, device, root):
    command, last = commands.train(PATHS, arm, device, ["steps=70"])
    assert last == PATHS.arm(arm) / "checkpoints/70"
    fields = [word.removeprefix("--config.") for word in command if word.startswith("--config.")]
    config = load_config(str(root / commands.CONFIG), fields)
    check_config(config)
    assert config.steps == 70 and config.init_from == "hf"
    infos = [SourceInfo(code, "text", code) for code in LANGUAGES]
    infos += [SourceInfo("parallel", "parallel", ""), SourceInfo("knowledge", "knowledge", "")]
    stages = plan_stages(config)
    assert len(stages) == (2 if arm.startswith(commands.STAGES) else 1)
    for number, stage in enumerate(stages):
        shares = mixture_shares(config, stage, infos)
        read = {name for name, share in shares.items() if share > 0}
        low = sum(shares[code] for code in STUDIED[2:])
        assert sum(shares.values()) == pytest.approx(1)
        if arm.startswith(commands.NAIVE):
            assert read == set(STUDIED[2:]) and low == pytest.approx(1)
            continue
        assert read == {*STUDIED, "parallel"}
        # Percent of Table 2: English, Chinese, low-resource and parallel text.
        table = ((32, 17, 9, 6), (28, 15, 15, 8))[number]
        found = (shares["en"], shares["zh"], low, shares["parallel"])
        wanted = [share / sum(table) for share in table]
        assert found == pytest.approx(wanted, abs=1e-3)


def mixture_shares(config, stage, infos):
    shares = get_mixture(stage.mixture, infos).shares
    # Sources of the other stage are known there, too.
    return apply_override(shares, config.mixture.override, infos, stage.name, {*shares})


@pytest.fixture
def paths(tmp_path):
    for name in ("hf", "files"):
        (tmp_path / name).mkdir()
    return commands.Paths(str(tmp_path / "hf"), "c", str(tmp_path / "files"), tmp_path / "work")


def flags(paths):
    return [
        f"--init_from={paths.init_from}",
        f"--data={paths.data}",
        f"--benchmarks={paths.benchmarks}",
        f"--workdir={paths.workdir}",
    ]


def test_the_study_stops_at_a_failure_and_goes_on_there(paths, monkeypatch, capsys):
    ran = []

    def run(command, until):
        ran.append(command)
        if len(ran) == 4:
            return study.STOPPED
        for word in command:
            if word.startswith("--out=") and "--compare" in command:
                write_json(pathlib.Path(word.removeprefix("--out=")), [DIFFERENCE])
            elif word.startswith("--out="):
                write_results(word.removeprefix("--out="), [])
            if word.startswith("--workdir="):
                (pathlib.Path(word.removeprefix("--workdir=")) / "checkpoints/98").mkdir(
                    parents=True
                )
        return 0

    monkeypatch.setattr(study, "run", run)
    assert study.main(flags(paths)) == study.STOPPED
    assert study.main(flags(paths)) == 0
    # The fourth command ran twice, all others once.
    assert len(ran) == len(steps(paths)) + 1 and ran[3] == ran[4]
    assert study.main(flags(paths)) == 0 and len(ran) == len(steps(paths)) + 1
    assert "Not measured yet: nothing." in capsys.readouterr().out


def test_a_command_is_told_to_save_when_time_is_up(monkeypatch, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "time.sleep(60)\n"
    )
    popen = study.subprocess.Popen
    monkeypatch.setattr(study.subprocess, "Popen", lambda _: popen([sys.executable, str(script)]))
    assert study.run(["train"], study.time.monotonic() + 1.5) == study.STOPPED


def test_tables_have_values_errors_and_what_is_missing(paths):
    bits = commands.PAIRED[0]
    rows = [Result("bits_per_byte", "kk", 0, "bits_per_byte", 2.0604, 0.0296, 24)]
    path = paths.results(commands.BASE, bits)
    path.parent.mkdir(parents=True)
    write_results(path, rows)
    arm = commands.arm_names(1)[0]
    paths.difference(arm, bits).parent.mkdir(parents=True)
    write_json(paths.difference(arm, bits), [DIFFERENCE])
    text = tables.markdown(paths, commands.arm_names(1))
    assert "| bits_per_byte, 0 shots | Kazakh | bits_per_byte | 2.060 | 0.030 | 24 |" in text
    assert "| Kazakh | 24 | 2.060 | -0.031 ± 0.004 |" in text
    assert "base xcopa" in text and json.dumps("nan") not in text


def test_bad_flags_are_one_line(paths, capsys):
    with pytest.raises(SystemExit):
        study.main([*flags(paths), "--parts=bases"])
    assert "choose of base, arms, knowledge" in capsys.readouterr().err
