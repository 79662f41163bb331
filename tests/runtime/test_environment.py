"""Which code and which machine a run records."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import time

import jax
import pytest

from marco_jax.runtime import environment as recorded
from marco_jax.runtime.environment import code_version, environment


def git(folder, *arguments):
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(folder)}
    for role in ("AUTHOR", "COMMITTER"):
        own |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": "a@example.org"}
    environment = {**os.environ, **own}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a package and its one commit."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    package = tmp_path / "checkout/package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "checkout/setup.py").write_text("")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package, "commit", "--quiet", "-m", "first")
    return package


def fake_git(folder, script, monkeypatch):
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_checkout_has_its_commit_and_whether_tracked_files_differ(checkout, monkeypatch):
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_version(checkout) == (commit, False)
    (checkout / "notes.txt").write_text("not tracked")
    assert code_version(checkout) == (commit, False)
    # A file outside of the package is of the same commit.
    (checkout.parent / "setup.py").write_text("changed")
    assert code_version(checkout) == (commit, True)
    git(checkout, "add", "-u")
    assert code_version(checkout) == (commit, True)
    # As in a hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(checkout / "nowhere"))
    assert code_version(checkout) == (commit, True)


def test_a_package_that_is_installed_below_a_checkout_has_no_commit(checkout, tmp_path):
    installed = checkout / ".venv/site-packages/marco_jax"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_version(installed) == ("", False)
    assert code_version(tmp_path) == ("", False)


def test_a_git_that_refuses_or_is_absent_or_hangs_gives_no_commit(checkout, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fake_git(tmp_path / "refuses", "echo 'dubious ownership' >&2; exit 128", patch)
        assert code_version(checkout) == ("", False)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert code_version(checkout) == ("", False)
    fake_git(tmp_path / "hangs", "exec sleep 60", monkeypatch)
    monkeypatch.setattr(recorded, "_GIT_SECONDS", 0.2)
    start = time.monotonic()
    assert code_version(checkout) == ("", False)
    assert time.monotonic() - start < 20


def test_the_environment_is_what_this_process_has(monkeypatch):
    version = importlib.metadata.version

    def without_libtpu(name):
        if name == "libtpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_libtpu)
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["hosts"] == 1 and found["devices"] == 8 and found["platform"] == "cpu"
    assert found["device_kind"] == jax.devices()[0].device_kind
    names = ["marco_jax", "python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"]
    assert list(found["versions"]) == names
    assert found["versions"]["jax"] == jax.__version__
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2")
    assert environment()["versions"]["libtpu"] == "1.2"
