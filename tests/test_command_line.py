"""Bad usage and bad input end in one line that names the field and the remedy."""

import json
import shlex

import pytest

from marco_jax.__main__ import main
from marco_jax.commands.command_examples import EXAMPLES, examples_of
from marco_jax.commands.parser import create_parser
from tests.conftest import TEXTS

COMMANDS = (
    *("train", "eval", "generate", "translate", "import", "export"),
    *("plan", "report", "sweep", "curate"),
)


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
        (["report", "--wrkdir=x"], "there is no flag --wrkdir; did you mean --workdir?"),
        (["eval", "--modle=m"], "there is no flag --modle; did you mean --model?"),
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
        (["eval", "--model={tmp}/no", "--out={tmp}/o.json"], "is not a model"),
        (["export", "--model={tmp}/no", "--out={tmp}/o"], "is not a model"),
        (["import", "--hf={tmp}/no", "--out={tmp}/o"], "config.json is absent"),
        (["report", "--workdir={tmp}"], "metrics.jsonl"),
        (["generate", "--model={tmp}/no", "--input={tmp}/no.jsonl"], "--out"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(capsys, tmp_path, root, argv, message):
    fill = {"tmp": str(tmp_path), "demo": str(root / "configs/demo.py")}
    code, error = run(capsys, *(item.format(**fill) for item in argv))
    assert code == 2
    (line,) = error.splitlines()
    assert message.format(**fill) in line
    assert not (tmp_path / "o").exists()


def test_every_command_has_examples_that_its_parser_takes():
    for command in COMMANDS:
        assert examples_of(command), command
    for example in EXAMPLES:
        arguments, rest = create_parser().parse_known_args(shlex.split(example.line)[1:])
        assert all(item.startswith("--config.") for item in rest), example


TINY = (
    *("--config.steps=4", "--config.log_every=2", "--config.tokenizer.vocab_size=320"),
    *("--config.model.hidden_size=32", "--config.model.intermediate_size=64"),
    *("--config.model.num_hidden_layers=2", "--config.model.num_attention_heads=2"),
    *("--config.model.num_key_value_heads=2", "--config.model.head_dim=16"),
    *("--config.batch.length=64", "--config.batch.sequences_per_chip=1"),
    *("--config.evaluation.examples.pick_translation=2", "--config.evaluation.max_length=256"),
    "--config.evaluation.examples.translation=1",
)


@pytest.mark.slow
def test_the_examples_run_one_after_the_other(root, corpus_file, tmp_path, monkeypatch, capsys):
    """As they stand, at a tiny size, from a folder with the files that they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(root / "configs")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Kazakh text:"}\n', "utf-8")
    (tmp_path / "raw").mkdir()
    pages = [{"id": str(n), "text": f"{text}. " * 12} for n, text in enumerate(TEXTS.values())]
    lines = "".join(json.dumps(page, ensure_ascii=False) + "\n" for page in pages)
    (tmp_path / "raw" / "pages.jsonl").write_text(lines, "utf-8")
    for example in EXAMPLES:
        if example.needs:
            continue
        command, *flags = shlex.split(example.line)[1:]
        if command in ("train", "sweep"):
            flags += [*TINY, f"--config.data={corpus_file}", "--config.evaluation.languages=en,kk"]
        if command == "sweep":
            flags += ["--config.sweep.bounds=en=0.01"]
        if command in ("generate", "translate"):
            flags += ["--max_new_tokens=4"]
        assert main([command, *flags]) == 0, (example.line, capsys.readouterr().err)
    for made in ("runs/demo/report.html", "kk_ne.json", "texts.jsonl", "hf", "imported", "corpus"):
        assert (tmp_path / made).exists(), made
