"""What an attempt of a run trains with: the commit of the code, versions of packages, devices."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import time
from typing import Any

import jax

import marco_jax

ENVIRONMENT = "environment.json"
# Packages whose versions decide what is computed, as registries spell them.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "libtpu")
# Variables that make git look at another repository, as they are set within its own hooks.
_GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
_GIT_SECONDS = 5.0


def environment() -> dict[str, Any]:
    """The code and the machine of this process, JSON-ready; starts JAX.

    Returns:
        `commit` and `modified` (`code_version`); `hosts` and `devices`, the numbers of processes
        and of devices of all of them; `device_kind` and `platform` of the first device; `versions`
        of packages by name, without those that are not installed.
    """
    commit, modified = code_version(pathlib.Path(__file__).parent)
    device = jax.devices()[0]
    versions = {"marco_jax": marco_jax.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit,
        "modified": modified,
        "hosts": jax.process_count(),
        "devices": jax.device_count(),
        "device_kind": device.device_kind,
        "platform": device.platform,
        "versions": versions,
    }


def code_version(folder: pathlib.Path) -> tuple[str, bool]:
    """The git commit of the checkout that a folder of Python files belongs to.

    Returns:
        40 hex digits, and whether files that git tracks differ from the commit; "" and False for a
        folder that git does not track (an installed package, also one below another project's
        checkout), and where git is absent, refuses, or does not answer within 5 seconds.
    """
    deadline = time.monotonic() + _GIT_SECONDS
    try:
        if not _git(folder, deadline, "ls-files", "--", "*.py"):
            return "", False
        # One call gives both: a line of the commit, and a line for each file that differs.
        options = ("--porcelain=v2", "--branch", "--untracked-files=no")
        lines = _git(folder, deadline, "status", *options).splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return "", False
    found = (re.fullmatch(r"# branch\.oid ([0-9a-f]{40})", line) for line in lines)
    commit = next((match[1] for match in found if match), "")
    return commit, bool(commit) and any(not line.startswith("#") for line in lines)


def _git(folder: pathlib.Path, deadline: float, *arguments: str) -> str:
    # Without optional locks a status does not disturb a git command of the user.
    own = {name: value for name, value in os.environ.items() if name not in _GIT_VARIABLES}
    return subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=folder,
        env=own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=max(0.01, deadline - time.monotonic()),
        check=True,
        text=True,
        errors="replace",
    ).stdout
