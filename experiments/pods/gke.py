"""Runs on GKE by way of xpk: a JobSet that Kubernetes starts again, and its logs."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

from experiments.pods.shell import CommandFailed, Shell
from experiments.pods.slices import Slice

# xpk starts a workload again after 42 and 127 to 255, which 143 (stopped after saving) and 137
# (killed) are among. A process that ends because another has died ends with 1; 2 is bad input.
_RESTART_AFTER = 1
# What xpk ends with when it has waited for a run: it has ended well, it still runs, it has failed.
_DONE, _STILL_RUNNING, _FAILED = 0, 124, 125


@dataclasses.dataclass(frozen=True)
class Workload:
    """One run in a cluster.

    Attributes:
        name: of the workload.
        slice: one of `count` equal ones.
        image: with marco_jax inside; experiments/pods/Dockerfile makes one.
        storage: what `xpk storage attach` has attached at /mnt/marco; empty: none.
        capacity: what an autoprovisioning cluster makes nodes of, one of CAPACITIES; empty: its
            own.
        reservation: the name of a reservation, with capacity "reserved".
        grace: seconds between SIGTERM and the end of a pod.
        env: more environment variables.
    """

    name: str
    slice: Slice
    count: int
    cluster: str
    project: str
    zone: str
    image: str
    storage: str = ""
    capacity: str = ""
    reservation: str = ""
    restarts: int = 100
    grace: int = 300
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def create(self, arguments: Sequence[str]) -> list[str]:
        """The command that submits `marco ARGUMENTS`."""
        # exec: the signal of a preemption goes to the run, not to a shell around it.
        command = shlex.join(["exec", "marco", *arguments])
        flags = [
            f"--tpu-type={self.slice.xpk_type}",
            f"--num-slices={self.count}",
            f"--docker-image={self.image}",
            f"--max-restarts={self.restarts}",
            f"--restart-on-exit-codes={_RESTART_AFTER}",
            f"--termination-grace-period-seconds={self.grace}",
        ]
        flags += [f"--storage={self.storage}"] if self.storage else []
        if self.capacity == "reserved":
            flags.append(f"--reservation={self.reservation}")
        elif self.capacity:
            flags.append(f"--{self.capacity}")
        flags += [f"--env={name}={value}" for name, value in self.env.items()]
        return [*self._xpk("create"), *self._place(), *flags, f"--command={command}"]

    def submit(self, arguments: Sequence[str], shell: Shell) -> None:
        """Submits the run; raises CommandFailed if xpk refuses, as for a name that is in use."""
        shell.must(self.create(arguments))

    def wait(self, shell: Shell) -> bool:
        """Waits for the end of the run; whether it has ended well.

        Raises:
            CommandFailed: xpk does not say how the run is.
        """
        command = ["xpk", "workload", "list", *self._place()]
        while True:
            done = shell.run([*command, f"--wait-for-job-completion={self.name}"])
            if done.code in (_DONE, _FAILED):
                return done.code == _DONE
            if done.code != _STILL_RUNNING:
                raise CommandFailed(
                    f"xpk ended with {done.code} while it waited for {self.name}, which may still "
                    "run: `status` says how it is"
                )

    def status(self, shell: Shell) -> list[str]:
        """What xpk lists of the run, and how often Kubernetes has started it again."""
        listed = shell.must(
            ["xpk", "workload", "list", *self._place(), f"--filter-by-job={self.name}"]
        )
        self._log_in(shell)
        jobset = ["kubectl", "get", "jobset", self.name]
        restarts = shell.must([*jobset, "--output=jsonpath={.status.restarts}"]).strip()
        return [*listed.splitlines(), f"restarts by Kubernetes {restarts or '0'}"]

    def logs(self, shell: Shell) -> str:
        """What every host has printed, each line with its pod's name before it."""
        self._log_in(shell)
        pods = ["kubectl", "logs", f"--selector=jobset.sigs.k8s.io/jobset-name={self.name}"]
        most = f"--max-log-requests={self.slice.hosts * self.count}"
        return shell.must([*pods, "--prefix", "--tail=-1", most])

    def tail(self, lines: int, shell: Shell, *, follow: bool = False) -> None:
        """Writes the last lines of the first host's log to standard output, and those to come.

        Raises:
            CommandFailed: there is no such log.
        """
        self._log_in(shell)
        # The first pod of the JobSet's first job.
        first = f"jobset.sigs.k8s.io/jobset-name={self.name},jobset.sigs.k8s.io/job-index=0"
        first += ",batch.kubernetes.io/job-completion-index=0"
        flags = [f"--selector={first}", f"--tail={lines}", *(["--follow"] if follow else [])]
        if code := shell.stream(["kubectl", "logs", *flags]):
            raise CommandFailed(f"no log from the first host of {self.name} (exit code {code})")

    def delete(self, shell: Shell) -> None:
        """Removes the workload: SIGTERM, and the grace to save; its chips are free again."""
        shell.must([*self._xpk("delete"), *self._place(), "--force"])

    def _log_in(self, shell: Shell) -> None:
        """Lets kubectl speak to the cluster."""
        shell.must(
            ["gcloud", "container", "clusters", "get-credentials", self.cluster, "--quiet"]
            + [f"--project={self.project}", f"--location={self.zone.rpartition('-')[0]}"]
        )

    def _xpk(self, verb: str) -> list[str]:
        return ["xpk", "workload", verb, f"--workload={self.name}"]

    def _place(self) -> list[str]:
        return [f"--cluster={self.cluster}", f"--project={self.project}", f"--zone={self.zone}"]
