"""Runs on slices by way of queued resources: asked for, set up, started, watched, started again.

The state is the cloud's and the hosts': a launcher that is stopped and started again with the same
arguments finds the slices and the run, and goes on watching. At the end the slices are released.
"""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Iterable, Sequence

from experiments.pods.record import Record
from experiments.pods.request import HOST_SCRIPT, Request
from experiments.pods.shell import CommandFailed, Shell, say

ARCHIVE = "marco-source.tar.gz"
ACTIVE = "ACTIVE"
# States of a queued resource that no slice will come of.
_GONE = {"SUSPENDED", "SUSPENDING", "FAILED"}
# Polls without an answer from an active slice after which it counts as lost.
_SILENT_POLLS = 5
# Exit codes of marco.
_BAD_INPUT, _SAVED_AND_STOPPED = 2, 143
# An attempt that has trained for longer does not count as one of several failures in a row.
_GOOD_ATTEMPT_SECONDS = 3600.0


class Outcome(enum.Enum):
    """What is known of a run from its hosts."""

    RUNNING = "running"
    DONE = "done"
    # The slices were taken, or the run saved and ended before they are.
    PREEMPTED = "preempted"
    # A process has ended that should not have: all of them start again, from the newest checkpoint.
    FAILED = "failed"
    BAD_INPUT = "bad input"
    # By `pods stop`, or the slices were deleted.
    STOPPED = "stopped"


class QueuedRun:
    """One run of `marco` on the slices of a request.

    `arguments` are those of `marco`, such as ["train", "--config=...", "--workdir=..."]; `shell`
    runs `gcloud`, or prints it; `record` keeps attempts and the time for which slices are held.
    """

    def __init__(
        self,
        request: Request,
        arguments: Sequence[str],
        shell: Shell,
        record: Record | None = None,
    ) -> None:
        self.request, self.arguments, self.shell = request, list(arguments), shell
        self.record = record
        # Whether it was this launcher that deleted the slices.
        self._deleted = False

    def launch(
        self,
        root: pathlib.Path,
        logs: pathlib.Path,
        poll: float,
        restarts: int,
        *,
        failures: int = 5,
        keep: bool = False,
    ) -> int:
        """From nothing, or from wherever an earlier launch was, to the end of the run.

        It runs the last commit of the clone `root`, looks every `poll` seconds, and writes what
        each host has printed to `logs`. After a preemption the run or the slices start again, up to
        `restarts` times; after a failure too, with pauses that double, but not after `failures` in
        a row. At the end the slices are released, unless they are to be kept.

        Returns:
            0 when the run is done, 1 when it keeps failing, 2 when `marco` refuses its input, 143
            when somebody has stopped it.

        Raises:
            CommandFailed: `gcloud` keeps refusing a command.
        """
        failed = 0
        for attempt in range(restarts + 1):
            if attempt:
                say(f"restart {attempt} of {restarts}: the run goes on from its newest checkpoint")
            began = self.shell.now()
            outcome = self._attempt(root, poll, again=attempt > 0, keep=keep)
            if outcome is not Outcome.STOPPED:
                self.gather(logs)
            if outcome is Outcome.DONE:
                return self._end(keep, 0)
            if outcome is Outcome.BAD_INPUT:
                say(f"marco refuses its input (exit code 2): see {logs}")
                return self._end(keep, _BAD_INPUT)
            if outcome is Outcome.STOPPED:
                say(f"{self.request.name} was stopped, or its slices were deleted")
                if not self._state():
                    self._note_release()
                return _SAVED_AND_STOPPED
            if outcome is Outcome.FAILED:
                long = self.shell.now() - began >= _GOOD_ATTEMPT_SECONDS
                failed = 1 if long else failed + 1
                if failed >= failures:
                    say(f"given up after {failed} failures in a row: see {logs}")
                    return self._end(keep, 1)
                self.shell.wait(self.shell.pause * 2**failed)
        say(f"given up after {restarts} restarts: see {logs}")
        return self._end(keep, 1)

    def stop(self, logs: pathlib.Path, *, keep: bool = False) -> None:
        """SIGTERM to the run on every host, which saves and ends; then the slices are released.

        Raises:
            CommandFailed: the hosts do not answer; the slices are then still held.
        """
        state = self._state()
        if not state and not self.shell.dry_run:
            say(f"{self.request.name} has no slices")
        if state == ACTIVE or self.shell.dry_run:
            for node in self.request.nodes:
                self.shell.must(self.request.ssh(node, "stop"))
            self.gather(logs)
        if state or self.shell.dry_run:
            self._end(keep, 0)
        else:
            self._note_release()

    def delete(self) -> None:
        """Releases the slices, whatever runs on them."""
        self.shell.must(self.request.delete())
        self._deleted = True
        self._note_release()

    def _note_release(self) -> None:
        if self.record:
            self.record.release(self.shell.now())

    def status(self) -> list[str]:
        """The states of the queued resource and of each slice, and a line a host."""
        state = self._state()
        lines = [f"{self.request.name} {state or 'absent'}"]
        if state == ACTIVE or self.shell.dry_run:
            for node in self.request.nodes:
                done = self.shell.run(self.request.describe_node(node))
                lines.append(f"slice {node} {done.out.strip() or 'unknown'}")
            lines += self._poll() or ["hosts do not answer"]
        return lines

    def tail(self, lines: int, *, follow: bool = False) -> None:
        """Writes the last lines of the first host's log to standard output, and those to come.

        Raises:
            CommandFailed: the host does not answer.
        """
        node = self.request.nodes[0]
        words = ["tail", str(lines), *(["follow"] if follow else [])]
        if code := self.shell.stream(self.request.ssh(node, *words, worker="0")):
            raise CommandFailed(
                f"no log from the first host of {node} (exit code {code}): `status` says whether "
                "it is there, and --logs has what launch has copied"
            )

    def gather(self, logs: pathlib.Path) -> None:
        """Copies each host's log to LOGS/NODE/WORKER.log; hosts that are gone are left out."""
        for node in self.request.nodes:
            folder = logs / node
            if not self.shell.dry_run:
                folder.mkdir(parents=True, exist_ok=True)
            command = self.request.ssh(node, "log", more=[f"--output-directory={folder}"])
            if self.shell.run(command).code:
                say(f"no logs from {node}: those on its shared storage remain")

    def _end(self, keep: bool, code: int) -> int:
        """Releases the slices, or says that they are kept; returns the code."""
        if keep:
            say(f"{self.request.name} keeps its slices (--keep): `delete` releases them")
            return code
        try:
            self.delete()
        except CommandFailed as error:
            raise CommandFailed(
                f"the slices of {self.request.name} may still be held: give `delete` ({error})"
            ) from None
        say(f"{self.request.name}: the slices are released")
        return code

    def _attempt(self, root: pathlib.Path, poll: float, *, again: bool, keep: bool) -> Outcome:
        """Asks for the slices, starts the run where it does not run, and watches it."""
        try:
            if again and not self._deleted and not self._state():
                return Outcome.STOPPED
            self._ensure(poll)
            found = Outcome.PREEMPTED if again else self._found()
            if found is Outcome.DONE:
                return found
            if found is not Outcome.RUNNING:
                self._set_up(root)
                for node in self.request.nodes:
                    self.shell.must(self.request.start(node, self.arguments))
                if self.record:
                    self.record.start(self.arguments)
        except CommandFailed as error:
            # The slices may be gone under a command; if not, it is the command.
            state = self._state_after(error)
            if state == ACTIVE:
                self._end(keep, 1)
            if state in (ACTIVE, ""):
                raise
            say(f"the slices are gone: {error}")
            return Outcome.PREEMPTED
        return self._watch(poll)

    def _state_after(self, error: CommandFailed) -> str:
        """The queued resource's state after a command has failed."""
        try:
            return self._state()
        except CommandFailed:
            raise CommandFailed(
                f"{error}; whether {self.request.name} holds slices is not known: the same command "
                "goes on, and `delete` releases them"
            ) from None

    def _ensure(self, poll: float) -> None:
        """Waits until the slices are there; asks for them where nobody has, or they were taken."""
        heard = ""
        while (state := self._state()) != ACTIVE:
            if state in _GONE:
                say(f"{self.request.name} is {state}: asked for again")
                self.delete()
                state = ""
            if not state:
                self._note_release()
                self.shell.must(self.request.create())
                self._deleted = False
            elif state != heard:
                say(f"{self.request.name} is {state}")
                heard = state
            if self.shell.dry_run:
                return
            self.shell.wait(poll)
        if self.record:
            self.record.hold(self.shell.now())

    def _state(self) -> str:
        """The queued resource's state, such as ACTIVE; empty where there is none."""
        command = self.request.describe()
        done = self.shell.run(command)
        if done.code == 0:
            return done.out.strip()
        if "NOT_FOUND" in done.error or "not found" in done.error.lower():
            return ""
        # Not an answer: a network or a login that fails.
        return self.shell.must(command).strip()

    def _set_up(self, root: pathlib.Path) -> None:
        """Copies the last commit to every host and installs it."""
        archive = f"/tmp/{ARCHIVE}"
        git = ["git", "-C", str(root)]
        self.shell.must([*git, "archive", "--format=tar.gz", f"--output={archive}", "HEAD"])
        for node in self.request.nodes:
            self.shell.must(self.request.copy(node, [archive, str(HOST_SCRIPT)]))
            self.shell.must(self.request.ssh(node, "setup", self.request.mount))

    def _found(self) -> Outcome | None:
        """What an earlier launch has left: a run, this one's end, or nothing of use (None)."""
        lines = [] if self.shell.dry_run else self._poll()
        outcome = outcome_of(lines, self.request.hosts) if lines else None
        # Another command may have run on slices that were kept.
        same = self.record is not None and self.record.arguments == self.arguments
        return outcome if outcome is Outcome.RUNNING or same else None

    def _watch(self, poll: float) -> Outcome:
        """Looks until the run has ended in some way."""
        silent = 0
        while True:
            lines = self._poll()
            if self.shell.dry_run:
                return Outcome.DONE
            outcome = outcome_of(lines or [], self.request.hosts)
            if outcome is not Outcome.RUNNING:
                say("; ".join(lines))
                return outcome
            silent = 0 if lines else silent + 1
            if silent and (lost := self._lost(silent)):
                return lost
            self.shell.wait(poll)

    def _lost(self, silent: int) -> Outcome | None:
        """What has become of hosts that have not answered so many polls; None: nothing yet."""
        try:
            state = self._state()
        except CommandFailed as error:
            # This machine may be cut off, and the run well: it is not touched.
            say(f"no answer from the cloud, looked for again: {error}")
            return None
        if not state:
            return Outcome.STOPPED
        if state != ACTIVE:
            say(f"{self.request.name} was preempted")
            return Outcome.PREEMPTED
        if silent >= _SILENT_POLLS:
            say(f"the hosts of {self.request.name} do not answer: its slices are given back")
            self.delete()
            return Outcome.PREEMPTED
        return None

    def _poll(self) -> list[str] | None:
        """A line a host; None where a slice does not answer."""
        lines: list[str] = []
        for node in self.request.nodes:
            done = self.shell.run(self.request.ssh(node, "status"))
            if done.code:
                return None
            lines += [line for line in done.out.splitlines() if line.strip()]
        return lines


def outcome_of(lines: Iterable[str], hosts: int) -> Outcome:
    """What the hosts' lines say of a run.

    A line is "HOST running", "HOST exited CODE", with "stopped" behind it after `pods stop`, or
    "HOST idle". A process that refuses its input ends with 2 and takes the others along with 1, so
    one 2 is enough. A run is done when every host has ended with 0; 143 is a preemption after
    saving.
    """
    words = [line.split() for line in lines]
    codes = [int(word[2]) for word in words if len(word) > 2 and word[1] == "exited"]
    if any(word[-1] == "stopped" for word in words):
        return Outcome.STOPPED
    if _BAD_INPUT in codes:
        return Outcome.BAD_INPUT
    if len(codes) == hosts and not any(codes):
        return Outcome.DONE
    if set(codes) - {0, _SAVED_AND_STOPPED}:
        return Outcome.FAILED
    # A host that has ended well waits for the others; one that is idle was set up anew.
    if any(codes) or any(word[1:] == ["idle"] for word in words):
        return Outcome.PREEMPTED
    return Outcome.RUNNING
