"""Bad usage and bad input end in one line that names the field and the remedy."""

import pytest

from marco_jax.__main__ import main

COMMANDS = ("train", "eval", "generate", "translate", "import", "export", "plan", "report", "sweep")


def run(capsys, *argv):
    """Exit code and standard error of one command."""
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "invalid choice"),
        (["train", "--workdir=x"], "--config"),
        (["report", "--wrkdir=x"], "workdir"),
        (["generate", "--model=m", "--prompt=x", "--config.steps=3"], "--config.steps=3"),
        (["train", "--config=configs/none.py", "--workdir={tmp}"], "there is no such file"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.stepz=3"], "'steps'"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.batch.len=3"], "length"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.steps=many"], "no int"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.batch=3"], "this is a group"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.stages=a"], "for 1 stages"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.steps=2"], "steps is 2"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.mesh.tensor=3"], "devices"),
        (["train", "--config={demo}", "--workdir={tmp}", "--config.data={tmp}/no"], "{tmp}/no"),
        (["eval", "--model={tmp}/no", "--out={tmp}/o.json"], "is no model"),
        (["export", "--model={tmp}/no", "--out={tmp}/o"], "is no model"),
        (["import", "--hf={tmp}/no", "--out={tmp}/o"], "config.json is absent"),
        (["report", "--workdir={tmp}"], "metrics.jsonl"),
        (["generate", "--model={tmp}/no", "--input={tmp}/no.jsonl"], "--out"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(capsys, tmp_path, root, argv, message):
    fill = {"tmp": str(tmp_path), "demo": str(root / "configs/demo.py")}
    code, error = run(capsys, *(item.format(**fill) for item in argv))
    assert code == 2
    lines = [line for line in error.splitlines() if not line.startswith("usage:")]
    assert message.format(**fill) in lines[-1]
    assert not (tmp_path / "o").exists()
