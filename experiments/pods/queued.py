"""Runs on slices by way of queued resources: asked for, set up, started, watched, started again.

The state is the cloud's and the hosts': a launcher that is stopped and started again with the same
arguments finds the slices and the run, and goes on watching.
"""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import shlex
from collections.abc import Iterable, Sequence

from experiments.pods.shell import CommandFailed, Shell, say
from experiments.pods.slices import Slice

HOST_SCRIPT = pathlib.Path(__file__).with_name("host.sh")
ARCHIVE = "marco-source.tar.gz"
# States of a queued resource that no slice will come of.
_GONE = {"SUSPENDED", "SUSPENDING", "FAILED"}
# Polls without an answer from an active slice after which it counts as lost.
_SILENT_POLLS = 5
_BAD_INPUT = 2
_TPUS = ("gcloud", "compute", "tpus")
_VM = (*_TPUS, "tpu-vm")


class Outcome(enum.Enum):
    """What is known of a run from its hosts."""

    RUNNING = "running"
    DONE = "done"
    # A process has ended that should not have: all of them start again, from the newest checkpoint.
    RESTART = "restart"
    BAD_INPUT = "bad input"


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of the cloud.

    Attributes:
        name: of the queued resource; nodes are called after it.
        slice: one of `count` equal ones.
        capacity: "on-demand", "spot" or "reserved".
        mount: storage that all hosts share, as host.sh takes it.
    """

    name: str
    slice: Slice
    count: int
    project: str
    zone: str
    capacity: str = "on-demand"
    mount: str = "none"

    @property
    def nodes(self) -> list[str]:
        """A name a slice."""
        if self.count == 1:
            return [self.name]
        return [f"{self.name}-{number}" for number in range(self.count)]


class QueuedRun:
    """One run of `marco` on the slices of a request.

    `arguments` are those of `marco`, such as ["train", "--config=...", "--workdir=..."]; `shell`
    runs `gcloud`, or prints it.
    """

    def __init__(self, request: Request, arguments: Sequence[str], shell: Shell) -> None:
        self.request, self.arguments, self.shell = request, list(arguments), shell

    def launch(self, root: pathlib.Path, logs: pathlib.Path, poll: float, restarts: int) -> int:
        """From nothing, or from wherever an earlier launch was, to the end of the run.

        It runs the last commit of the clone `root`, looks every `poll` seconds, starts the run or
        the slices again up to `restarts` times, and writes what each host has printed to `logs`.

        Returns:
            0 when the run is done, 1 when it keeps failing, 2 when `marco` refuses its input.

        Raises:
            CommandFailed: `gcloud` keeps refusing a command.
        """
        for attempt in range(restarts + 1):
            if attempt:
                say(f"restart {attempt} of {restarts}: the run goes on from its newest checkpoint")
            try:
                self._ensure(poll)
                if attempt or not self._is_running():
                    self._set_up(root)
                    self._on_every_node("start", self.request.mount, *self.arguments)
                outcome = self._watch(poll)
            except CommandFailed as error:
                # The slices may be gone under a command; if not, it is the command.
                if self._state() == "ACTIVE":
                    raise
                say(f"the slices are gone: {error}")
                continue
            self.gather(logs)
            if outcome is Outcome.DONE:
                return 0
            if outcome is Outcome.BAD_INPUT:
                say(f"marco refuses its input (exit code 2): see {logs}")
                return 2
        say(f"given up after {restarts} restarts: see {logs}")
        return 1

    def stop(self) -> None:
        """SIGTERM to the run on every host: it saves and ends."""
        self._on_every_node("stop")

    def delete(self) -> None:
        """Gives the slices back."""
        self.shell.must(self._queue("delete", "--force", "--quiet"))

    def status(self) -> list[str]:
        """The queued resource's state, and a line a host."""
        state = self._state()
        lines = [f"{self.request.name} {state or 'absent'}"]
        if state == "ACTIVE":
            lines += self._poll() or ["hosts do not answer"]
        return lines

    def gather(self, logs: pathlib.Path) -> None:
        """Copies each host's log to LOGS/NODE/WORKER.log; hosts that are gone are left out."""
        for node in self.request.nodes:
            folder = logs / node
            if not self.shell.dry_run:
                folder.mkdir(parents=True, exist_ok=True)
            command = self._ssh(node, "log", more=[f"--output-directory={folder}"])
            if self.shell.run(command).code:
                say(f"no logs from {node}: those on its shared storage remain")

    def _ensure(self, poll: float) -> None:
        """Waits until the slices are there; asks for them where nobody has, or they were taken."""
        said = ""
        while (state := self._state()) != "ACTIVE":
            if state in _GONE:
                say(f"{self.request.name} is {state}: asked for again")
                self.delete()
                state = ""
            if not state:
                self.shell.must(self._create())
            elif state != said:
                say(f"{self.request.name} is {state}")
                said = state
            if self.shell.dry_run:
                return
            self.shell.wait(poll)

    def _create(self) -> list[str]:
        request = self.request
        nodes = [f"--node-id={request.name}"]
        if request.count > 1:
            nodes = [f"--node-count={request.count}", f"--node-prefix={request.name}"]
        capacity = [] if request.capacity == "on-demand" else [f"--{request.capacity}"]
        runtime = f"--runtime-version={request.slice.generation.runtime}"
        return self._queue("create", *nodes, *request.slice.gcloud_flags(), runtime, *capacity)

    def _state(self) -> str:
        """The queued resource's state, such as ACTIVE; empty where there is none."""
        command = self._queue("describe", "--format=value(state.state)")
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
            files = [archive, str(HOST_SCRIPT)]
            self.shell.must([*_VM, "scp", *files, f"{node}:", *self._place(), "--worker=all"])
            self.shell.must(self._ssh(node, "setup", self.request.mount))

    def _on_every_node(self, *words: str) -> None:
        for node in self.request.nodes:
            self.shell.must(self._ssh(node, *words))

    def _is_running(self) -> bool:
        if self.shell.dry_run:
            return False
        lines = self._poll()
        return bool(lines) and outcome_of(lines, self._hosts) is Outcome.RUNNING

    def _watch(self, poll: float) -> Outcome:
        """Looks until the run has ended in some way."""
        silent = 0
        while True:
            lines = self._poll()
            if self.shell.dry_run:
                return Outcome.DONE
            silent = 0 if lines else silent + 1
            outcome = outcome_of(lines or [], self._hosts)
            if outcome is not Outcome.RUNNING:
                say("; ".join(lines))
                return outcome
            if silent and self._state() != "ACTIVE":
                say(f"{self.request.name} was preempted")
                return Outcome.RESTART
            if silent >= _SILENT_POLLS:
                say(f"the hosts of {self.request.name} do not answer: its slices are given back")
                self.delete()
                return Outcome.RESTART
            self.shell.wait(poll)

    def _poll(self) -> list[str] | None:
        """A line a host; None where a slice does not answer."""
        lines: list[str] = []
        for node in self.request.nodes:
            done = self.shell.run(self._ssh(node, "status"))
            if done.code:
                return None
            lines += [line for line in done.out.splitlines() if line.strip()]
        return lines

    @property
    def _hosts(self) -> int:
        return self.request.slice.hosts * self.request.count

    def _ssh(self, node: str, *words: str, more: Sequence[str] = ()) -> list[str]:
        """The command that calls host.sh on all hosts of a node."""
        flags = [*self._place(), "--worker=all", "--batch-size=all", *more]
        return [*_VM, "ssh", node, *flags, f"--command={shlex.join(['bash', 'host.sh', *words])}"]

    def _queue(self, verb: str, *flags: str) -> list[str]:
        return [*_TPUS, "queued-resources", verb, self.request.name, *self._place(), *flags]

    def _place(self) -> list[str]:
        return [f"--project={self.request.project}", f"--zone={self.request.zone}"]


def outcome_of(lines: Iterable[str], hosts: int) -> Outcome:
    """What the hosts' lines ("HOST running", "HOST exited CODE", "HOST idle") say of a run.

    A process that refuses its input ends with 2 and takes the others along with 1, so one 2 is
    enough. A run is done when every host has ended with 0; 143 is a preemption after saving.
    """
    words = [line.split() for line in lines]
    codes = [int(word[2]) for word in words if len(word) == 3 and word[1] == "exited"]
    if _BAD_INPUT in codes:
        return Outcome.BAD_INPUT
    if len(codes) == hosts and not any(codes):
        return Outcome.DONE
    # A host that has ended well waits for the others; one that is idle was set up anew.
    if any(codes) or any(word[1:] == ["idle"] for word in words):
        return Outcome.RESTART
    return Outcome.RUNNING
