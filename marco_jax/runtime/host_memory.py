"""What the allocator does with large buffers that are freed, where JAX computes in host memory.

A step on a CPU allocates gigabytes and frees them again. By default glibc takes each large buffer
from the kernel and hands it back at once, so that every step pays for every page anew: a tenth of
the time of a small model's step.
"""

from __future__ import annotations

import ctypes
import glob
import os
import platform

OPT_OUT = "MARCO_KEEP_MEMORY"
# Options of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_SETTINGS = (
    (_MMAP_MAX, 0),  # large buffers come from the heap,
    (_TRIM_THRESHOLD, -1),  # which never shrinks,
    (_TOP_PAD, 256 * 2**20),  # grows by 256 MiB at a time,
    (_ARENA_MAX, 1),  # and is one for all threads: what one has freed, another takes.
)
_ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*")


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed for the next step; returns whether it was told so.

    Only where JAX is going to compute on a CPU (JAX_PLATFORMS names it first, or is not set on a
    machine without accelerators), and unless the environment has MARCO_KEEP_MEMORY=0. To be called
    before JAX starts: arenas that threads have by then stay. The process then holds its largest
    use of memory until it ends.
    """
    if os.environ.get(OPT_OUT) == "0" or not computes_on_cpu() or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(option, value) for option, value in _SETTINGS])


def computes_on_cpu() -> bool:
    """Whether JAX will choose the CPU, judged without starting it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(glob.glob(pattern) for pattern in _ACCELERATORS)
