"""The memory of this process' devices, as metrics."""

from __future__ import annotations

import jax

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
