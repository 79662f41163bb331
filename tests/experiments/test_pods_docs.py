"""Commands of the pages on pods are whole jobs: parsed by the real parsers, and resolved.

A reader copies them and pays for slices. A line without `config.data` or `config.init_from` would
train the corpus of the package, or random weights.
"""

import shlex

import pytest

from experiments.pods.__main__ import _checked
from experiments.pods.flags import create_launcher_parser
from experiments.pods.job import parse_marco, read_job
from experiments.pods.slices import Slice
from marco_jax.training.config import load_config
from tests.test_docs import DOCS, ROOT, blocks_of

PAGES = ("pods.md", "stage1_v5p_128.md")
LAUNCHER = ["python", "-m", "experiments.pods"]
# What a training command of these pages has to say itself, whatever its config has.
STATED = ("init_from", "tokenizer.path", "data", "data_cache", "stages", "mixture.name")


def commands(page):
    """The commands of a page, as words; those that gcloud takes to hosts in their stead."""
    for block in blocks_of(DOCS / page):
        for command in block.commands:
            words = shlex.split(command)
            there = [word for word in words if word.startswith("--command=")]
            yield shlex.split(there[0].partition("&& ")[2]) if there else words


def check_marco(words):
    """Parses `marco WORDS`, and resolves its config; a training command must be a whole job."""
    given = parse_marco(words)
    if given.command != "train":
        if hasattr(given, "config"):
            load_config(str(ROOT / given.config), given.overrides)
        return
    topology = load_config(str(ROOT / given.config)).topology
    read_job(words, Slice.parse(topology), None, ROOT)
    check_stated(given.overrides)


def check_stated(overrides):
    """Refuses a training command that leaves out a part of the job (ValueError)."""
    stated = {item.partition("=")[0] for item in overrides}
    if missing := [name for name in STATED if name not in stated]:
        raise ValueError(f"the command has no --config.{missing[0]}")


def check_launcher(words):
    """Parses a command of the launcher; what it launches is read as it reads it."""
    split = words.index("--") if "--" in words else len(words)
    arguments = create_launcher_parser("").parse_args(words[:split])
    if arguments.verb == "launch":
        # The plan is a file that the reader has made.
        arguments.plan = ""
        marco = words[split + 1 :]
        _checked(arguments, marco)
        check_stated(parse_marco(marco).overrides)


def check(words):
    """Raises ValueError for a command that is not a whole job."""
    if words[:3] == LAUNCHER:
        check_launcher(words[3:])
    elif words[0].removeprefix(".venv/bin/") == "marco":
        check_marco(words[1:])
    else:
        assert words[0] in ("gcloud", "xpk", "python"), words


FOUND = [(page, words) for page in PAGES for words in commands(page)]
TRAINING = [words for _, words in FOUND if "train" in words]


@pytest.mark.parametrize(
    ("page", "words"), FOUND, ids=[f"{page}:{' '.join(words)[:70]}" for page, words in FOUND]
)
def test_a_command_is_a_whole_job(page, words):
    check(words)


def test_the_pages_have_commands_that_train():
    for page in PAGES:
        assert sum(words in TRAINING for of, words in FOUND if of == page) >= 4
    assert any(words[:3] == LAUNCHER for words in TRAINING)
    assert any(words[0] == "marco" for words in TRAINING)
    assert any(words[0] == ".venv/bin/marco" for words in TRAINING)


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("data", "would train on the corpus that ships with the package"),
        ("init_from", "would train random weights"),
        ("tokenizer.path", "has no --config.tokenizer.path"),
        ("stages", "has no --config.stages"),
    ],
)
@pytest.mark.parametrize("words", TRAINING, ids=lambda words: " ".join(words)[:70])
def test_a_command_that_leaves_something_out_is_noticed(words, field, error):
    less = [word for word in words if not word.startswith(f"--config.{field}=")]
    assert len(less) < len(words)
    with pytest.raises(ValueError, match=error):
        check(less)


@pytest.mark.parametrize("words", TRAINING, ids=lambda words: " ".join(words)[:70])
@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("data", "default", "would train on the corpus that ships with the package"),
        ("data", "/data/sources.json", "the hosts have no such path"),
        ("stepz", "3", "did you mean 'steps'"),
    ],
)
def test_a_command_with_a_wrong_field_is_noticed(words, field, value, error):
    with pytest.raises(ValueError, match=error):
        check([*words, f"--config.{field}={value}"])


def test_a_workdir_outside_a_bucket_is_noticed():
    for words in TRAINING:
        local = [
            "--workdir=/mnt/marco/run" if word.startswith("--workdir=") else word for word in words
        ]
        with pytest.raises(ValueError, match="the hosts do not share this path"):
            check(local)
