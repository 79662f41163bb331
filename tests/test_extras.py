"""A package that is not installed ends in one line, with the command that installs it."""

import json
import shlex
import sys

import pytest

from marco_jax import extras
from marco_jax.__main__ import main
from marco_jax.extras import MissingExtra, install_command, missing_extra, optional, require


class Distribution:
    """Installed metadata with a direct_url.json, or without."""

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        return json.dumps(self.origin) if name == "direct_url.json" and self.origin else None


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Puts the package into site-packages, recorded as coming from somewhere."""

    def record(origin):
        package = tmp_path / "site-packages/marco_jax/extras.py"
        monkeypatch.setattr(extras, "__file__", str(package))
        found = [Distribution(None), Distribution(origin)]
        monkeypatch.setattr(extras.importlib.metadata, "distributions", lambda name: found)

    return record


def words(extra):
    """The command as a shell splits it, without the interpreter."""
    python, *rest = shlex.split(install_command(extra))
    assert python == sys.executable
    assert rest[:3] == ["-m", "pip", "install"]
    return rest[3:]


def test_a_clone_is_installed_again_with_the_extra(root):
    assert words("curation") == ["-e", f"{root}[curation]"]


@pytest.mark.parametrize("editable", [True, False])
def test_a_directory_is_installed_again_as_it_was(installed, tmp_path, editable):
    clone = tmp_path / "a clone's"
    clone.mkdir()
    installed({"url": clone.as_uri(), "dir_info": {"editable": True} if editable else {}})
    assert words("plan") == [*(["-e"] if editable else []), f"{clone}[plan]"]


def test_a_wheel_is_installed_again_by_its_path(installed, tmp_path):
    wheel = tmp_path / "marco_jax-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert words("sweep") == [f"{wheel}[sweep]"]


def test_the_packages_of_a_wheel_that_is_gone_are_named(installed, tmp_path, monkeypatch):
    installed({"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}})
    lines = [
        "jax>=0.10",
        'wandb>=0.3; extra == "wandb"',
        "b>1; python_version>'3' and extra == 'all'",
    ]
    monkeypatch.setattr(extras.importlib.metadata, "requires", lambda name: lines)
    assert words("wandb") == ["wandb>=0.3"]


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "marco_jax[hf]"),
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "marco_jax[hf] @ git+https://host/x.git@abc",
        ),
        (
            {"url": "https://host/x.whl", "archive_info": {}},
            "marco_jax[hf] @ https://host/x.whl",
        ),
    ],
)
def test_what_came_from_elsewhere_is_asked_for_there(installed, origin, requirement):
    installed(origin)
    assert words("hf") == [requirement]


def test_an_environment_without_pip_is_one_of_uv(monkeypatch):
    monkeypatch.setattr(extras, "is_installed", lambda module: module != "pip")
    assert install_command("plan").startswith(f"uv pip install --python {sys.executable} -e '")


def test_a_missing_module_names_itself_its_use_and_the_remedy():
    error = missing_extra("apache_beam", "marco curate")
    assert isinstance(error, ValueError)
    start, _, command = str(error).partition(": ")
    assert start == "marco curate needs apache_beam, which is not installed"
    assert command == install_command("curation")


def test_modules_of_no_extra_are_not_ours_to_explain():
    assert missing_extra("no_such_module") is None
    # What is broken inside an installed package.
    assert missing_extra("transformers.no_such_part") is None
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), optional():
        import no_such_module  # noqa: F401


def test_all_that_an_extra_lacks_is_named_at_once(monkeypatch):
    require("curation")
    gone = {"ftfy", "pycld2"}
    monkeypatch.setattr(extras, "is_installed", lambda module: module not in gone)
    with pytest.raises(
        MissingExtra, match="^curation needs ftfy, pycld2, which are not installed: "
    ):
        require("curation")


def test_a_command_without_its_extra_ends_in_one_line(monkeypatch, capsys, tmp_path, root):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    command = ["curate", "--input=x.jsonl", f"--out={tmp_path / 'out'}"]
    assert main([*command, f"--config={root / 'configs/curation.py'}"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("marco curate: curation needs apache_beam")
    assert told[0].endswith(install_command("curation"))


def test_a_missing_module_anywhere_ends_a_command_in_that_line(monkeypatch, capsys, root):
    def run(arguments):
        import lightgbm  # noqa: F401

    monkeypatch.setitem(sys.modules, "lightgbm", None)
    monkeypatch.setattr("marco_jax.commands.study_commands.report_command", run)
    assert main(["report", "--workdir=anywhere"]) == 2
    assert "needs lightgbm, which is not installed: " in capsys.readouterr().err
