"""The memory of this process' devices: as metrics, and where the CPU is the device."""

from __future__ import annotations

from typing import Any

import jax

from marco_jax.runtime.host_memory import memory_limit, return_freed_memory

# The share of a machine's memory above which arrays are large. A step's gradients, new parameters
# and activations take about as much again, and so does the copy that a checkpoint is written from.
_LARGE_SHARE = 1 / 8
# Names of metrics, and of what JAX reports for a device; all in bytes.
_METRICS = {
    "hbm_peak_bytes": "peak_bytes_in_use",
    "hbm_bytes": "bytes_in_use",
    "hbm_limit_bytes": "bytes_limit",
}


def memory_metrics() -> dict[str, float]:
    """The largest number of each kind over the local devices, in bytes.

    `hbm_peak_bytes`: the most that was in use since the process started; `hbm_bytes`: in use now;
    `hbm_limit_bytes`: what may be. A metric is left out where no device reports it, as on a CPU.
    The allocator keeps these numbers on the host: nothing waits for a device.
    """
    found: dict[str, float] = {}
    for device in jax.local_devices():
        try:
            stats = device.memory_stats() or {}
        # Some backends raise where others return None.
        except jax.errors.JaxRuntimeError:
            continue
        for metric, name in _METRICS.items():
            if name in stats:
                found[metric] = max(found.get(metric, 0.0), float(stats[name]))
    return found


def are_large_on_cpu(arrays: Any) -> bool:
    """Whether a tree of arrays lies on CPU devices and takes over an eighth of their memory."""
    if jax.default_backend() != "cpu":
        return False
    shards = [shard for leaf in jax.tree.leaves(arrays) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards) > _LARGE_SHARE * memory_limit()


def make_room_on_cpu(arrays: Any) -> None:
    """Returns freed memory to the kernel, now and later, where arrays on CPU devices are large."""
    if are_large_on_cpu(arrays):
        return_freed_memory()
