"""Commands of other programs: run and tried again, or printed."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

# A program that is not there, as shells say it.
NOT_FOUND = 127
# Where programs come from.
_SOURCES = {
    "gcloud": "install the Google Cloud CLI",
    "kubectl": "gcloud components install kubectl",
    "xpk": "pip install xpk",
    "git": "install git with the system's packages",
}


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit code and what it wrote."""

    code: int
    out: str = ""
    error: str = ""


class CommandFailed(Exception):
    """A command that did not work, however often it was tried."""


class Shell:
    """Runs commands one after the other, and says each.

    Attributes:
        dry_run: print the commands to standard output, run none.
        pause: seconds before a second try; they double with each.
    """

    def __init__(self, dry_run: bool = False, pause: float = 5.0) -> None:
        self.dry_run, self.pause = dry_run, pause

    def run(self, command: Sequence[str], dry: str = "") -> Finished:
        """One try; what a dry run would have read is `dry`."""
        line = shlex.join(command)
        if self.dry_run:
            print(line, flush=True)
            return Finished(0, dry)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            remedy = _SOURCES.get(command[0], "install it")
            raise CommandFailed(f"{command[0]} is not on PATH: {remedy}") from None
        return Finished(done.returncode, done.stdout, done.stderr)

    def stream(self, command: Sequence[str]) -> int:
        """One try whose output goes to this process's as it comes; returns the exit code."""
        if self.dry_run:
            return self.run(command).code
        try:
            return subprocess.run(command, check=False).returncode
        except FileNotFoundError:
            return self.run(command).code

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def must(self, command: Sequence[str], attempts: int = 4) -> str:
        """Runs a command until it works; returns what it wrote.

        Raises:
            CommandFailed: it does not, after so many attempts.
        """
        for attempt in range(attempts):
            done = self.run(command)
            if done.code == 0:
                return done.out
            reason = " ".join(done.error.split())[-300:]
            if attempt + 1 < attempts:
                say(f"{command[0]} ended with {done.code}, tried again: {reason}")
                self.wait(self.pause * 2**attempt)
        raise CommandFailed(f"{shlex.join(command)} ended with {done.code}: {reason}")

    def wait(self, seconds: float) -> None:
        """Waits, unless commands are only printed."""
        if not self.dry_run:
            time.sleep(seconds)


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
