"""Local snapshots: every host writes the shards it holds to its own disk, often.

The durable checkpoint is on storage that outlives the hosts, and is written less often. A restart
takes the newest step of which the hosts together still have every shard; a host without its disk
gets its shards from another that holds the same ones. Orbax's emergency checkpoint manager is not
used: it needs two replicas or more, finds local shards by the number of the process that wrote
them, and keeps arrays alone, while a restart also needs the meta of a step.

A snapshot belongs to a run by the identifier in the workdir's `snapshots.json`, together with the
path of the workdir. The file also has the step that each attempt of the run went on from: steps
after it that earlier attempts wrote belong to a history that the run has left, and are not taken.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import pathlib
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from marco_jax.files import read_json_object, write_json
from marco_jax.runtime.device_memory import are_large_on_cpu
from marco_jax.runtime.logs import EVERY_PROCESS
from marco_jax.runtime.processes import agree
from marco_jax.weights.checkpoints import Arrays, Meta
from marco_jax.weights.manifest import Damaged
from marco_jax.weights.shard_files import (
    ShardFolder,
    ShardKey,
    as_shard,
    local_shards,
    remove_unfinished,
    shard_key,
    write_shards,
)

_log = logging.getLogger(__name__)

SNAPSHOTS = "snapshots.json"
# Whole snapshots of a process that stay while it writes the next. A host may be as much as one
# behind the others: the newest that all have is then the second one.
_KEPT = 2
# Snapshots that a process tells the others of: a few, since there may be some of other attempts.
_MOST = 16

# A snapshot's attempt of the run and its step: the later, the newer.
_Label = tuple[int, int]


class Snapshots:
    """The snapshots of a run on this host's disk."""

    def __init__(self, workdir: pathlib.Path, policy: ConfigDict) -> None:
        """Finds the run's folder in `checkpoint.local_dir`; `policy` is `config.checkpoint`."""
        self.every = policy.local_every
        self._record = workdir / SNAPSHOTS
        # Only where there have been snapshots must attempts without them be known.
        self._used = bool(agree("used" if self.every or self._record.exists() else ""))
        self._folder: pathlib.Path | None = None
        self._thread: threading.Thread | None = None
        self._attempt = 0
        self._history: list[int] = []
        if not self._used:
            return
        run, self._history = self._read_record(workdir)
        self._attempt = len(self._history)
        if self.every:
            self._folder = pathlib.Path(policy.local_dir).absolute() / run

    def restore_newest(
        self, like: Arrays, check: Callable[[Meta], None], at_least: int
    ) -> tuple[Arrays, Meta] | None:
        """Restores the newest step of which the hosts together have every shard, if there is one.

        Args:
            like: shapes, dtypes and shardings.
            check: raises if this run cannot resume from a step with the given meta.
            at_least: the step from which on a snapshot is wanted.
        """
        if self._folder is None:
            return None
        self.wait()
        layout = _Layout(like)
        own = self._scan()
        at_least = int(_gather(np.int32(at_least)).max())
        labels = np.full((_MOST, 2), -1, np.int32)
        newest = sorted(own, reverse=True)[:_MOST]
        labels[: len(newest)] = np.reshape(newest, (-1, 2))
        found = {(int(a), int(s)) for a, s in _gather(labels).reshape(-1, 2)}
        for label in sorted(found, key=lambda label: (label[1], label[0]), reverse=True):
            if label[1] < at_least or not self._is_of_history(label):
                continue
            taken = _take(layout, own.get(label, []))
            if taken is not None:
                shards, meta = taken
                check(meta)
                return layout.build(shards, like), meta
        return None

    def begin(self, step: int) -> None:
        """Notes that this attempt goes on from `step`: later ones of earlier attempts are void."""
        if not self._used:
            return
        # After a rollback, an attempt that has begun already goes on from a later step.
        start = min([step, *self._history[self._attempt :]])
        self._history = [*self._history[: self._attempt], start]
        if jax.process_index() == 0:
            fields = read_json_object(self._record)
            write_json(self._record, fields | {"attempts": self._history})
        if self._folder is not None:
            remove_unfinished(self._own)
            for path in self._steps():
                if int(path.name) > step:
                    shutil.rmtree(path, ignore_errors=True)

    def save(self, step: int, arrays: Arrays, meta: Meta) -> None:
        """Copies the shards to the host and writes them in the background.

        As for a checkpoint, large arrays that a CPU computes on are written before it returns.
        """
        if self._folder is None:
            return
        self.wait()
        for path in self._steps()[:-_KEPT]:
            shutil.rmtree(path, ignore_errors=True)
        shards = local_shards(arrays)
        fields = {"attempt": self._attempt, "step": step, "meta": {"step": step} | meta}
        # The run goes on, and may change what the meta refers to.
        fields = copy.deepcopy(fields)
        self._thread = threading.Thread(
            target=self._write, args=(step, shards, fields), name="snapshot"
        )
        self._thread.start()
        if are_large_on_cpu(arrays):
            self.wait()

    def wait(self) -> None:
        """Blocks until the snapshot that is being written is whole."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def _own(self) -> pathlib.Path:
        """This process's folder; a host may have several processes."""
        return self._folder / f"process-{jax.process_index()}"

    def _write(self, step: int, shards: dict[ShardKey, np.ndarray], fields: Any) -> None:
        try:
            write_shards(self._own / str(step), shards, fields)
        except OSError as error:
            _log.warning(
                f"the snapshot of step {step} could not be written in {self._own}: "
                f"{error.strerror or error}; the run goes on, and a restart takes an older step",
                extra=EVERY_PROCESS,
            )
            remove_unfinished(self._own)

    def _steps(self) -> list[pathlib.Path]:
        """The whole snapshots of this process, oldest first."""
        found = [path for path in self._own.glob("*") if path.name.isdigit()]
        return sorted(found, key=lambda path: int(path.name))

    def _scan(self) -> dict[_Label, list[ShardFolder]]:
        """The snapshots on this host's disk, of whichever process wrote them."""
        found: dict[_Label, list[ShardFolder]] = {}
        for path in self._folder.glob("process-*/*"):
            if not path.name.isdigit():
                continue
            try:
                folder = ShardFolder(path)
            except Damaged as damage:
                _warn_damaged(damage)
                continue
            label = (folder.fields["attempt"], folder.fields["step"])
            found.setdefault(label, []).append(folder)
        return found

    def _is_of_history(self, label: _Label) -> bool:
        """Whether all later attempts went on from this snapshot's step or from later ones."""
        attempt, step = label
        return attempt >= 0 and all(step <= start for start in self._history[attempt + 1 :])

    def _read_record(self, workdir: pathlib.Path) -> tuple[str, list[int]]:
        """The name of the run's folder and the steps that its attempts went on from."""
        name = ""
        if jax.process_index() == 0:
            if not self._record.exists():
                write_json(self._record, {"run": uuid.uuid4().hex, "attempts": []})
            # A copy of a workdir is another run.
            key = f"{read_json_object(self._record)['run']} {workdir.resolve()}"
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
        name = agree(name)
        return name, list(read_json_object(self._record)["attempts"])


class _Layout:
    """Which process needs which shards of the arrays of a run."""

    def __init__(self, like: Arrays) -> None:
        self._leaves = []
        self.keys: dict[ShardKey, set[int]] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(like):
            name, by_device = jax.tree_util.keystr(path), {}
            for device, index in leaf.sharding.devices_indices_map(leaf.shape).items():
                key = shard_key(name, leaf, index)
                self.keys.setdefault(key, set()).add(device.process_index)
                by_device[device] = key
            self._leaves.append((leaf, by_device))

    def build(self, shards: dict[ShardKey, np.ndarray], like: Arrays) -> Arrays:
        """The arrays on the mesh, from the shards that this process needs."""
        leaves = []
        for leaf, by_device in self._leaves:
            parts = [
                jax.device_put(shards[by_device[device]], device)
                for device in leaf.sharding.addressable_devices
            ]
            leaves.append(
                jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)
            )
        arrays = jax.tree.unflatten(jax.tree.structure(like), leaves)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        # The memory of shards on a CPU cannot be donated, but that of jitted copies can.
        copy = jax.jit(lambda tree: jax.tree.map(jax.numpy.copy, tree), out_shardings=shardings)
        return jax.block_until_ready(copy(arrays))


def _take(
    layout: _Layout, folders: Iterable[ShardFolder]
) -> tuple[dict[ShardKey, np.ndarray], Meta] | None:
    """The shards that this process needs of one step, and the step's meta.

    A shard that a process needs and does not have is sent by the first that has it.

    Returns:
        None where no process has some shard.
    """
    folders, this = list(folders), jax.process_index()
    while True:
        # [processes, shards]
        have = _gather(np.array([any(key in one for one in folders) for key in layout.keys]))
        if not have.any(axis=0).all():
            return None
        senders = have.argmax(axis=0)
        sent, read, problem = [], {}, ""
        for number, (key, users) in enumerate(layout.keys.items()):
            lacking = any(not have[process, number] for process in users)
            if lacking:
                sent.append((key, int(senders[number])))
            if have[this, number] and (this in users or (lacking and senders[number] == this)):
                folder = next(one for one in folders if key in one)
                try:
                    read[key] = folder.read(key)
                except Damaged as damage:
                    _warn_damaged(damage)
                    folders.remove(folder)
                    problem = "damaged"
                    break
        if not agree(problem):
            break
    if sent and this == 0:
        _log.info(f"{len(sent)} shards of the snapshot come from another host's disk")
    for key, sender in sent:
        data = read[key].reshape(-1).view(np.uint8) if this == sender else None
        data = _send(data, key.nbytes, sender)
        if this in layout.keys[key] and key not in read:
            read[key] = as_shard(key, data)
    return read, _send_meta(folders, int(senders[0]))


def _send_meta(folders: list[ShardFolder], sender: int) -> Meta:
    """The meta of a step, from the process `sender`."""
    text = json.dumps(folders[0].fields["meta"]) if jax.process_index() == sender else ""
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(_gather(np.int32(data.size)).max())
    return json.loads(_send(data, size, sender).tobytes())


def _send(data: np.ndarray | None, size: int, sender: int) -> np.ndarray:
    """Bytes of the process `sender` in all processes."""
    own = jax.process_index() == sender
    data = data if own else np.zeros(size, np.uint8)
    return np.array(multihost_utils.broadcast_one_to_all(data, is_source=own))


def _gather(value: Any) -> np.ndarray:
    """[processes, ...]: the value of each process."""
    value = np.asarray(value)
    gathered = multihost_utils.process_allgather(value)
    return np.asarray(gathered).reshape(jax.process_count(), *value.shape)


def _warn_damaged(damage: Damaged) -> None:
    _log.warning(f"a snapshot is not used: {os.fspath(str(damage))}", extra=EVERY_PROCESS)
