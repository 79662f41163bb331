"""Optional packages: the extra of each module, and the command that installs an extra.

EXTRAS lists the modules of each extra; setup.py lists the distributions that contain them. This
module imports only the standard library.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

NAME = "marco_jax"


@dataclasses.dataclass(frozen=True)
class Extra:
    """An extra of setup.py: its purpose, and the top-level modules that it installs."""

    purpose: str
    modules: tuple[str, ...]


EXTRAS = {
    "demo": Extra("the default corpus", ("django", "rest_framework", "allauth", "babel")),
    "plan": Extra("compiling for TPUs", ("libtpu",)),
    "curation": Extra(
        "curation",
        (
            *("apache_beam", "trafilatura", "justext", "ftfy", "phonenumbers", "pycld2"),
            *("langidentify", "zstandard", "brotli", "chardet", "dask", "distributed"),
        ),
    ),
    "sweep": Extra("the fit 'lightgbm' of a sweep", ("lightgbm",)),
    "quantize": Extra("products in 8 bits", ("qwix",)),
    "hf": Extra("the Hugging Face libraries", ("transformers", "gguf")),
    "wandb": Extra("Weights & Biases", ("wandb",)),
    "mlflow": Extra("MLflow", ("mlflow",)),
    "harness": Extra("lm-evaluation-harness", ("lm_eval",)),
    "gcs": Extra("a path of gs://", ("gcsfs",)),
    "s3": Extra("a path of s3://", ("s3fs",)),
}


class MissingExtra(ValueError):
    """A package of an extra is not installed; the message contains the command to install it."""


def missing_extra(module: str, use: str = "") -> MissingExtra | None:
    """The error for a module that could not be imported; None if it does not belong to an extra.

    Args:
        module: dotted name, such as `ModuleNotFoundError.name`.
        use: the feature that needs it; by default the purpose of the extra.
    """
    top = module.partition(".")[0]
    extra = next((name for name, extra in EXTRAS.items() if top in extra.modules), None)
    # A missing submodule of an installed package is an error of that package.
    if extra is None or (top != module and is_installed(top)):
        return None
    return _error([top], extra, use)


def require(extra: str, use: str = "") -> None:
    """Checks that all modules of an extra are installed, without importing them.

    Raises:
        MissingExtra: a module is not installed.
    """
    absent = [module for module in EXTRAS[extra].modules if not is_installed(module)]
    if absent:
        raise _error(absent, extra, use)


@contextlib.contextmanager
def optional(use: str = "") -> Iterator[None]:
    """Raises MissingExtra if an import in the block misses a module of an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_extra(error.name or "", use)
        if missing is None:
            raise
        raise missing from None


def is_installed(module: str) -> bool:
    """Whether a top-level module can be found."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def install_command(extra: str) -> str:
    """The shell command that installs an extra, from the origin of the installed package."""
    root = pathlib.Path(__file__).resolve().parent.parent
    if (root / "setup.py").is_file():
        return f"{_pip()} -e {_quoted(f'{root}[{extra}]')}"
    origin = _origin()
    if origin is None:
        return f"{_pip()} {_quoted(f'{NAME}[{extra}]')}"
    url = origin["url"]
    if "vcs_info" in origin:
        commit = origin["vcs_info"]["commit_id"]
        url = f"{origin['vcs_info']['vcs']}+{url}@{commit}"
    elif urlsplit(url).scheme == "file":
        path = pathlib.Path(unquote(urlsplit(url).path))
        if not path.exists():
            # The wheel was removed: install the requirements of the extra by name.
            return f"{_pip()} {' '.join(map(_quoted, _requirements(extra)))}"
        editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
        return f"{_pip()} {editable}{_quoted(f'{path}[{extra}]')}"
    return f"{_pip()} {_quoted(f'{NAME}[{extra}] @ {url}')}"


def _error(modules: list[str], extra: str, use: str) -> MissingExtra:
    verb = "is" if len(modules) == 1 else "are"
    return MissingExtra(
        f"{use or EXTRAS[extra].purpose} needs {', '.join(modules)}, which {verb} not installed: "
        f"{install_command(extra)}"
    )


def _pip() -> str:
    python = shlex.quote(sys.executable or "python")
    # uv makes environments that have no pip.
    if is_installed("pip"):
        return f"{python} -m pip install"
    return f"uv pip install --python {python}"


def _quoted(requirement: str) -> str:
    """Puts a requirement in single quotes, since shells interpret brackets and >."""
    return "'" + requirement.replace("'", "'\"'\"'") + "'"


def _origin() -> dict | None:
    """The origin that pip recorded (PEP 610); None for a package from an index."""
    for distribution in importlib.metadata.distributions(name=NAME):
        if text := distribution.read_text("direct_url.json"):
            return json.loads(text)
    return None


def _requirements(extra: str) -> list[str]:
    """The requirements of an extra, from the installed metadata."""
    marker = re.compile(rf"""\s*;.*\bextra\s*==\s*["']{re.escape(extra)}["'].*$""")
    lines = importlib.metadata.requires(NAME) or []
    return [marker.sub("", line) for line in lines if marker.search(line)]
