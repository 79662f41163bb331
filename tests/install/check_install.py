"""Installs the wheel as a user would, extra by extra, and tries what each promises.

    python tests/install/check_install.py [--extras=core,curation] [--python=python3.13] [--keep]

Every extra gets a fresh environment without constraints.txt. There the trials of trials.py run,
from a folder outside the clone. Extras that cannot be used here are resolved by pip alone. Prints a
table; exits with 1 if anything fails, after the last lines of what failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import trials

TAIL_LINES = 25
TRIAL_SECONDS = 900
INSTALL_SECONDS = 3600
NAMES = (trials.CORE, *trials.USER, trials.ALL, *trials.RESOLVED)
# Of the machine's settings, those that would let the clone or its constraints in, or a network.
_DROPPED = ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV", "PYTHONHOME")
_SET = {
    "JAX_PLATFORMS": "cpu",
    "WANDB_MODE": "offline",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
}


class Failed(Exception):
    """A command did not end as it should; the message shows its last lines."""


@dataclasses.dataclass
class Row:
    """A line of the table."""

    extra: str
    python: str
    install_seconds: float = 0.0
    size_gib: float = 0.0
    run_seconds: float = 0.0
    result: str = "ok"

    def cells(self) -> tuple[str, ...]:
        """As text, a cell a column."""
        return (
            self.extra,
            self.python,
            f"{self.install_seconds:.0f}",
            f"{self.size_gib:.2f}" if self.size_gib else "-",
            f"{self.run_seconds:.0f}" if self.run_seconds else "-",
            self.result,
        )


HEADER = ("extra", "python", "install s", "size GiB", "run s", "result")


def main() -> int:
    """Checks the extras that were asked for; returns the exit code."""
    arguments = _parse()
    place = pathlib.Path(tempfile.mkdtemp(prefix="check_install_"))
    rows = []
    try:
        wheel = _build(place)
        for extra in arguments.extras:
            rows.append(_check(extra, arguments.python, wheel, place, keep=arguments.keep))
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    print(_table(rows))
    return int(any(row.result != "ok" for row in rows))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", default="", help=f"of {','.join(NAMES)}; default: every one")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to install for")
    parser.add_argument("--keep", action="store_true", help="leave the environments")
    arguments = parser.parse_args()
    arguments.extras = arguments.extras.split(",") if arguments.extras else list(NAMES)
    if unknown := set(arguments.extras) - set(NAMES):
        parser.error(f"--extras has {unknown.pop()!r}: choose from {', '.join(NAMES)}")
    return arguments


def _build(place: pathlib.Path) -> pathlib.Path:
    """The wheel of a copy of the clone, so that nothing is left in the clone."""
    source = place / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(trials.ROOT / "marco_jax", source / "marco_jax", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(trials.ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", f"--wheel-dir={place}"]
    _run([*command, str(source)], place, INSTALL_SECONDS)
    shutil.rmtree(source)
    return next(place.glob("*.whl"))


def _check(extra: str, python: str, wheel: pathlib.Path, place: pathlib.Path, keep: bool) -> Row:
    """Installs and tries one extra; its environment is removed unless it is to be kept."""
    folder = place / extra
    work = folder / "work"
    work.mkdir(parents=True)
    row = Row(extra, "")
    try:
        _run([python, "-m", "venv", str(folder / "venv")], work, 300)
        inside = str(folder / "venv/bin/python")
        version = "import platform; print(platform.python_version())"
        row.python = _run([inside, "-c", version], work, 60).strip()
        _install(row, inside, wheel)
        if extra not in trials.RESOLVED:
            row.size_gib = _size(folder / "venv") / 2**30
            _try(row, inside, work)
    except Failed as error:
        row.result = "FAILED"
        print(f"{extra}: {error}", flush=True)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    print("  ".join(row.cells()), flush=True)
    return row


def _install(row: Row, python: str, wheel: pathlib.Path) -> None:
    wanted = str(wheel) if row.extra == trials.CORE else f"{wheel}[{row.extra}]"
    command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", wanted]
    start = time.monotonic()
    try:
        if row.extra in trials.RESOLVED:
            _run([*command, "--dry-run"], wheel.parent, INSTALL_SECONDS)
            return
        _run(command, wheel.parent, INSTALL_SECONDS)
        _run([python, "-m", "pip", "check", "--disable-pip-version-check"], wheel.parent, 300)
    finally:
        row.install_seconds = time.monotonic() - start


def _try(row: Row, python: str, work: pathlib.Path) -> None:
    trials.write_files(work)
    start = time.monotonic()
    ours = {"marco": [str(pathlib.Path(python).with_name("marco"))], "python": [python]}
    try:
        for trial in trials.trials(row.extra):
            command = [*ours[trial.command[0]], *trial.command[1:]]
            said = _run(command, work, TRIAL_SECONDS, trial.code)
            if trial.says not in said:
                raise Failed(f"{_shown(command)} does not say {trial.says!r}\n{_tail(said)}")
            if "Traceback" in said:
                raise Failed(f"{_shown(command)} shows a traceback\n{_tail(said)}")
    finally:
        row.run_seconds = time.monotonic() - start


def _run(command: list[str], folder: pathlib.Path, seconds: float, code: int = 0) -> str:
    """Runs a command; returns all that it printed.

    Raises:
        Failed: another exit code, or it took too long.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment | _SET,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise Failed(f"{command[0]} is no program: name an interpreter with --python") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{_shown(command)} took more than {seconds:.0f} s") from None
    if done.returncode != code:
        told = f"{_shown(command)} ended with {done.returncode}, not {code}"
        raise Failed(f"{told}\n{_tail(done.stdout)}")
    return done.stdout


def _shown(command: list[str]) -> str:
    return " ".join(command)[:400]


def _tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-TAIL_LINES:])


def _size(folder: pathlib.Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def _table(rows: list[Row]) -> str:
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    return "\n".join(line.rstrip() for line in padded)


if __name__ == "__main__":
    sys.exit(main())
