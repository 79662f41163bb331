"""A quiet end of the process: what runs ends before the interpreter goes.

On a CPU, JAX reads a NumPy array in place, and the thread that ran the program lets go of it: for
that it needs the interpreter's lock. A thread that asks for the lock while Python shuts down is
ended by Python, which C++ answers with `terminate called without an active exception`: a run that
did all its work would end as aborted.
"""

from __future__ import annotations

import atexit
import functools
import time

import jax

# Threads that wait for the lock take microseconds each once they have it.
_GRACE_SECONDS = 0.05


@functools.cache
def end_quietly() -> None:
    """Makes the end of the process wait for programs in flight and the threads that ran them."""
    atexit.register(_drain)


def _drain() -> None:
    # With several processes a program may wait for one that has died: never wait for it here.
    if jax.process_count() == 1:
        jax.block_until_ready(jax.live_arrays())
    time.sleep(_GRACE_SECONDS)
