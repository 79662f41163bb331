"""What is asked of the cloud for a run, and the `gcloud` commands that ask for it."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from experiments.pods.slices import Slice

HOST_SCRIPT = pathlib.Path(__file__).with_name("host.sh")
CAPACITIES = ("on-demand", "spot", "reserved")
_TPUS = ("gcloud", "compute", "tpus")
_VM = (*_TPUS, "tpu-vm")
# What the roles of the service account allow is the limit, not the scopes of the machine.
_SCOPES = "cloud-platform"


@dataclasses.dataclass(frozen=True)
class Request:
    """A queued resource: slices that are asked for together.

    Attributes:
        name: of the queued resource; nodes are called after it.
        slice: one of `count` equal ones.
        capacity: one of CAPACITIES.
        mount: storage to mount at /mnt/marco, as host.sh takes it: "bucket:NAME",
            "nfs:SERVER:/PATH" or "none".
        service_account: whose roles the hosts have; empty: the project's default account.
        env: environment variables of `marco` on the hosts.
    """

    name: str
    slice: Slice
    count: int
    project: str
    zone: str
    capacity: str = "on-demand"
    mount: str = "none"
    service_account: str = ""
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def nodes(self) -> list[str]:
        """A name a slice."""
        if self.count == 1:
            return [self.name]
        return [f"{self.name}-{number}" for number in range(self.count)]

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slice.chips * self.count

    @property
    def hosts(self) -> int:
        """Machines of all slices."""
        return self.slice.hosts * self.count

    def create(self) -> list[str]:
        """The command that asks for the slices."""
        nodes = [f"--node-id={self.name}"]
        if self.count > 1:
            nodes = [f"--node-count={self.count}", f"--node-prefix={self.name}"]
        flags = [f"--runtime-version={self.slice.generation.runtime}", f"--scopes={_SCOPES}"]
        flags += [] if self.capacity == "on-demand" else [f"--{self.capacity}"]
        if self.service_account:
            flags.append(f"--service-account={self.service_account}")
        return self._queue("create", *nodes, *self.slice.gcloud_flags(), *flags, "--quiet")

    def describe(self) -> list[str]:
        """The command that writes the queued resource's state, such as ACTIVE."""
        return self._queue("describe", "--format=value(state.state)")

    def describe_node(self, node: str) -> list[str]:
        """The command that writes a slice's state, such as READY or PREEMPTED."""
        return [*_VM, "describe", node, *self._location(), "--format=value(state)"]

    def delete(self) -> list[str]:
        """The command that releases the slices."""
        return self._queue("delete", "--force", "--quiet")

    def copy(self, node: str, files: Sequence[str]) -> list[str]:
        """The command that copies files to the home folder of every host of a slice."""
        flags = [*self._location(), "--worker=all", "--quiet"]
        return [*_VM, "scp", *files, f"{node}:", *flags]

    def ssh(
        self, node: str, *words: str, worker: str = "all", more: Sequence[str] = ()
    ) -> list[str]:
        """The command that calls host.sh on the hosts of a slice: all of them, or one."""
        hosts = ["--worker=all", "--batch-size=all"] if worker == "all" else [f"--worker={worker}"]
        flags = [*self._location(), *hosts, "--quiet", *more]
        return [*_VM, "ssh", node, *flags, f"--command={shlex.join(['bash', 'host.sh', *words])}"]

    def start(self, node: str, arguments: Sequence[str]) -> list[str]:
        """The command that starts `marco ARGUMENTS` on every host of a slice."""
        env = [f"{name}={value}" for name, value in self.env.items()]
        return self.ssh(node, "start", self.mount, *env, *arguments)

    def _queue(self, verb: str, *flags: str) -> list[str]:
        return [*_TPUS, "queued-resources", verb, self.name, *self._location(), *flags]

    def _location(self) -> list[str]:
        return [f"--project={self.project}", f"--zone={self.zone}"]
