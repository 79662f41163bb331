"""A process that trains on a CPU keeps the memory of one step for the next."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest

import marco_jax
from marco_jax.runtime import host_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

# Frees and takes 64 MiB ten times, as a step does its temporaries, and counts the new pages.
FAULTS = """
import resource, numpy as np
from marco_jax.runtime.host_memory import keep_freed_memory
told = keep_freed_memory()
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)
start = pages()
for _ in range(10):
    np.ones(2**23)
print(told, pages() - start)
"""


# The resident memory after 256 MiB are freed in the middle of the heap, before and after the call.
RETURNED = """
import numpy as np
from marco_jax.runtime.host_memory import keep_freed_memory, return_freed_memory
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
assert keep_freed_memory()
first, second = np.ones(2**25), np.ones(2**20)
del first
kept = resident()
assert return_freed_memory()
print(kept - resident())
start = resident()
third = np.ones(2**25 + 2**23)  # more than the hole in the heap
grown = resident() - start
del third
print(grown, resident() - start)
"""


def words_of(script: str, **environment: str) -> list[str]:
    """What a script prints, in words."""
    kept = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "MARCO_KEEP_MEMORY")}
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(marco_jax.__file__).parent.parent,
        env=kept | environment,
    )
    return run.stdout.split()


def told_and_faults(**environment: str) -> tuple[bool, int]:
    told, faults = words_of(FAULTS, **environment)
    return told == "True", int(faults)


@glibc
def test_on_a_cpu_freed_memory_is_taken_again():
    told, faults = told_and_faults(JAX_PLATFORMS="cpu")
    assert told
    assert faults < 100  # of 10 x 16384 pages of 4 KiB


@glibc
@pytest.mark.parametrize(
    "environment",
    [{"JAX_PLATFORMS": "tpu,cpu"}, {"JAX_PLATFORMS": "cpu", "MARCO_KEEP_MEMORY": "0"}],
)
def test_elsewhere_and_on_request_the_allocator_is_left_alone(environment):
    assert not told_and_faults(**environment)[0]


@glibc
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_kept_memory_can_be_returned():
    returned, grown, left = map(int, words_of(RETURNED, JAX_PLATFORMS="cpu"))
    assert returned > 250
    assert grown > 250 and left < 10


def test_a_process_that_keeps_nothing_is_left_as_it_is():
    assert not host_memory.return_freed_memory()


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "_CONTAINER_LIMITS", (tmp_path / "a", tmp_path / "b"))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host_memory.memory_limit() == machine
    (tmp_path / "a").write_text("max\n", encoding="ascii")
    assert host_memory.memory_limit() == machine
    (tmp_path / "b").write_text("1048576\n", encoding="ascii")
    assert host_memory.memory_limit() == 2**20


@pytest.mark.parametrize(
    ("installed", "accelerators", "given", "expected"),
    [
        (True, [], None, "cpu"),
        (True, ["/dev/accel0"], None, None),
        (False, [], None, None),
        (True, [], "cuda,cpu", "cuda,cpu"),
    ],
)
def test_an_absent_tpu_is_left_out(monkeypatch, installed, accelerators, given, expected):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if given:
        monkeypatch.setenv("JAX_PLATFORMS", given)
    with monkeypatch.context() as patch:
        patch.setattr(host_memory.glob, "glob", lambda pattern: accelerators)
        patch.setattr(host_memory.importlib.util, "find_spec", lambda name: installed or None)
        host_memory.leave_out_absent_tpu()
    assert os.environ.get("JAX_PLATFORMS") == expected
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
