"""Settings of a process that computes on a CPU: freed memory is reused, and no TPU is looked for.

A step on a CPU allocates and frees gigabytes. By default glibc gets each large buffer from the
kernel and returns it when it is freed, so that every step causes page faults for all its memory,
which take a tenth of the time of a small model's step. Kept memory is fragmented, though: a 0.5B
model's steps grow from 16 to 23 GB. Where the state of a run is large beside the machine's memory,
freed memory is returned, and a checkpoint is written before the next step begins.

Where the TPU compiler is installed without a TPU, JAX starts it beside the CPU. It then writes
messages about missing hosts, and libtpu 0.0.52 ends the process when a profile begins.
"""

from __future__ import annotations

import ctypes
import glob
import importlib.util
import os
import pathlib
import platform

OPT_OUT = "MARCO_KEEP_MEMORY"
# Options of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
_KEEP = (
    (_MMAP_MAX, 0),  # large buffers come from the heap
    (_TRIM_THRESHOLD, -1),  # the heap never shrinks
    (_TOP_PAD, 256 * 2**20),  # it grows by 256 MiB at a time
    (_ARENA_MAX, 1),  # all threads share one heap and can reuse each other's freed memory
)
# The defaults, with the highest threshold that glibc takes: buffers below 32 MiB are still reused.
_RETURN = (
    (_MMAP_MAX, 65536),
    (_MMAP_THRESHOLD, 32 * 2**20),
    (_TRIM_THRESHOLD, 128 * 2**20),
    (_TOP_PAD, 128 * 2**10),
)
# Limits of a container's memory: of control groups in version 2 and 1, as the container sees them.
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd")


# Whether this process keeps freed memory now.
_kept = False


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for reuse; returns whether it was done.

    It is done if JAX will compute on a CPU (JAX_PLATFORMS names it first, or is not set on a
    machine without accelerators), unless the environment has MARCO_KEEP_MEMORY=0. Call it before
    JAX starts, since threads keep the arenas that they have. The process then keeps its peak memory
    until it ends, or until `return_freed_memory`.
    """
    global _kept
    if os.environ.get(OPT_OUT) == "0" or not computes_on_cpu() or platform.libc_ver()[0] != "glibc":
        return False
    _kept = _set_options(_KEEP)
    return _kept


def return_freed_memory() -> bool:
    """Makes glibc return large freed buffers to the kernel, those of the past too.

    It undoes `keep_freed_memory`, but for buffers that fit where older ones were. Returns whether
    it was done: a process that keeps nothing is left as it is.
    """
    global _kept
    if not _kept or not _set_options(_RETURN):
        return False
    ctypes.CDLL(None).malloc_trim(0)
    _kept = False
    return True


def memory_limit() -> int:
    """The memory that this process may use, in bytes: the machine's, or its container's if less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(pathlib.Path, _CONTAINER_LIMITS):
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def _set_options(settings: tuple[tuple[int, int], ...]) -> bool:
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(option, value) for option, value in settings])


def leave_out_absent_tpu() -> None:
    """Sets JAX_PLATFORMS=cpu where libtpu is installed and JAX would compute on a CPU all the same.

    Call it before JAX starts.
    """
    if computes_on_cpu() and importlib.util.find_spec("libtpu"):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def computes_on_cpu() -> bool:
    """Whether JAX will choose the CPU, without starting JAX."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(glob.glob(pattern) for pattern in _ACCELERATORS)
