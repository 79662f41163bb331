"""Runs on GKE by way of xpk: a JobSet that Kubernetes starts again, and its logs."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

from experiments.pods.shell import Shell
from experiments.pods.slices import Slice

# xpk starts a workload again after 42 and 127 to 255, which 143 (stopped after saving) and 137
# (killed) are among. A process that ends because another has died ends with 1; 2 is bad input.
_RESTART_AFTER = 1


@dataclasses.dataclass(frozen=True)
class Workload:
    """One run in a cluster.

    Attributes:
        name: of the workload.
        slice: one of `count` equal ones.
        image: with marco_jax inside; experiments/pods/Dockerfile makes one.
        storage: what `xpk storage` has attached for all hosts to share; empty: none.
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
        flags += [f"--env={name}={value}" for name, value in self.env.items()]
        return [*self._xpk("create"), *self._place(), *flags, f"--command={command}"]

    def submit(self, arguments: Sequence[str], shell: Shell) -> None:
        """Submits the run; raises CommandFailed if xpk refuses, as for a name that is in use."""
        shell.must(self.create(arguments))

    def wait(self, shell: Shell) -> int:
        """Waits for the end of the run: xpk's code (0 done, 124 no end in a week, 125 failed)."""
        command = ["xpk", "workload", "list", *self._place()]
        return shell.run([*command, f"--wait-for-job-completion={self.name}"]).code

    def logs(self, shell: Shell) -> str:
        """What every host has printed, each line with its pod's name before it."""
        shell.must(
            ["gcloud", "container", "clusters", "get-credentials", self.cluster]
            + [f"--project={self.project}", f"--location={self.zone.rpartition('-')[0]}"]
        )
        return shell.must(
            ["kubectl", "logs", f"--selector=jobset.sigs.k8s.io/jobset-name={self.name}"]
            + ["--prefix", "--tail=-1", f"--max-log-requests={self.slice.hosts * self.count}"]
        )

    def delete(self, shell: Shell) -> None:
        """Removes the workload: SIGTERM, and the grace to save."""
        shell.must([*self._xpk("delete"), *self._place()])

    def _xpk(self, verb: str) -> list[str]:
        return ["xpk", "workload", verb, f"--workload={self.name}"]

    def _place(self) -> list[str]:
        return [f"--cluster={self.cluster}", f"--project={self.project}", f"--zone={self.zone}"]
