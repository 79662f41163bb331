"""Weights of a 7B model in and out: rate, memory, and whether every byte is the same.

    python -m benchmarks.interop [--preset=qwen2_7b] [--directory=DIR]

Writes a Hugging Face directory of random bfloat16 weights in a published shape (15 GB for 7B), runs
`marco import` and `marco export` on it as processes of their own, and compares what comes out with
what went in, tensor by tensor. Rate and peak resident memory are those of the whole process, start
included; there is nothing beside them. The disk must hold the weights twice.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.tokenizers.tokenizer import train_sentencepiece
from marco_jax.weights.directory import huggingface_shapes, write_directory
from marco_jax.weights.safetensors_files import Tensor, stored_tensors

LIMIT_GIB = 6.0


def main() -> int:
    """Prints JSON; the exit code is 1 where a byte differs or the memory is more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="qwen2_7b", choices=[*PRESETS])
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="where there is room")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="interop.") as name:
        found = measure(PRESETS[arguments.preset], pathlib.Path(name))
    print(json.dumps({"preset": arguments.preset, **found}, indent=2))
    peak = max(found[direction]["peak_gib"] for direction in ("import", "export"))
    return int(found["different"] > 0 or peak > LIMIT_GIB)


def measure(config: Qwen2Config, directory: pathlib.Path) -> dict[str, Any]:
    """Both directions of a random model; what is no longer needed is deleted on the way."""
    source, checkpoint, exported = (directory / name for name in ("hf", "checkpoint", "exported"))
    before = write_random(config, source)
    nbytes = 2 * config.num_parameters
    imported = _run(nbytes, "import", f"--hf={source}", f"--out={checkpoint}")
    shutil.rmtree(source)
    again = _run(nbytes, "export", f"--model={checkpoint}", f"--out={exported}")
    shutil.rmtree(checkpoint)
    after = {name: _sum(t.map()) for name, t in stored_tensors(exported).items()}
    different = sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())
    tensors = {"tensors": len(before), "different": different}
    return {"import": imported, "export": again, **tensors}


def write_random(config: Qwen2Config, directory: pathlib.Path) -> dict[str, int]:
    """Writes random finite bfloat16 weights and a tokenizer; returns the tensors' checksums."""
    sums = {}

    def reader(name: str, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            generator = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
            # Without the exponent's first bit no pattern is an infinity or not a number.
            bits = generator.integers(0, 1 << 16, shape, np.uint16) & 0xBFFF
            sums[name] = _sum(bits)
            return bits.view(ml_dtypes.bfloat16)

        return read

    kind = np.dtype(ml_dtypes.bfloat16)
    shapes = huggingface_shapes(config)
    tensors = {name: Tensor(kind, shape, reader(name, shape)) for name, shape in shapes.items()}
    words = [f"{number} birds sing in the old trees" for number in range(500)]
    tokenizer = train_sentencepiece(words, 290, directory.parent / "tokenizer")
    write_directory(directory, config, tensors, tokenizer)
    return sums


def _sum(array: np.ndarray) -> int:
    return zlib.crc32(memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))


def _run(nbytes: int, *command: str) -> dict[str, float]:
    """A `marco` command's rate and peak memory, as the kernel counted it."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "marco_jax", *command],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"marco {' '.join(command)} ended with {process.returncode}")
    seconds = time.perf_counter() - start
    return {
        "gigabytes": nbytes / 1e9,
        "seconds": seconds,
        "megabytes_per_second": nbytes / 1e6 / seconds,
        "peak_gib": usage.ru_maxrss / (1 << 20),
    }


if __name__ == "__main__":
    sys.exit(main())
