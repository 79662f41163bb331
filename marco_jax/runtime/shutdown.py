"""Makes a process wait at its exit for running JAX programs, which would otherwise abort it.

On a CPU, JAX programs read NumPy arrays in place, and release them on the thread that ran the
program, which needs the GIL for that. Python ends a thread that requests the GIL during shutdown,
and C++ then aborts with `terminate called without an active exception`, although the run was
successful.
"""

from __future__ import annotations

import atexit
import functools
import time

import jax

# A thread needs the GIL for microseconds only.
_GRACE_SECONDS = 0.05


@functools.cache
def end_quietly() -> None:
    """Makes the exit of the process wait for running programs and their threads."""
    atexit.register(_drain)


def _drain() -> None:
    # With several processes a program may wait forever for a process that has died.
    if jax.process_count() == 1:
        jax.block_until_ready(jax.live_arrays())
    time.sleep(_GRACE_SECONDS)
