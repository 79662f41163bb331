"""Weights of a 7B model in and out: rate, memory, and whether every byte is the same.

    python -m benchmarks.interop [--preset=qwen2_7b] [--directory=DIR]

Writes a Hugging Face directory of random bfloat16 weights in a published shape (15 GB for 7B), runs
`marco import` and `marco export` on it as processes of their own, and compares what comes out with
what went in, tensor by tensor. Rate and peak resident memory are those of the whole process, start
included; there is nothing beside them. The disk must hold the weights twice. The exit code is 1
where a byte differs.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import zlib

import ml_dtypes
import numpy as np

from benchmarks.common import print_json, read_flags
from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.tokenizers.tokenizer import train_sentencepiece
from marco_jax.weights.directory import huggingface_shapes, write_directory
from marco_jax.weights.safetensors_files import Tensor, stored_tensors


def write_random(config: Qwen2Config, directory: pathlib.Path) -> None:
    """Writes random finite bfloat16 weights and a tokenizer."""

    def random(name: str, shape: tuple[int, ...]) -> np.ndarray:
        generator = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
        # Without the exponent's first bit no pattern is an infinity or not a number.
        bits = generator.integers(0, 1 << 16, shape, np.uint16) & 0xBFFF
        return bits.view(ml_dtypes.bfloat16)

    kind = np.dtype(ml_dtypes.bfloat16)
    tensors = {
        name: Tensor(kind, shape, functools.partial(random, name, shape))
        for name, shape in huggingface_shapes(config).items()
    }
    words = [f"{number} birds sing in the old trees" for number in range(500)]
    tokenizer = train_sentencepiece(words, 290, directory.parent / "tokenizer")
    write_directory(directory, config, tensors, tokenizer)


def checksums(directory: pathlib.Path) -> dict[str, int]:
    """Of every tensor's bytes."""
    return {
        name: zlib.crc32(np.ascontiguousarray(tensor.map()).reshape(-1).view(np.uint8))
        for name, tensor in stored_tensors(directory).items()
    }


def _run(nbytes: int, *command: str) -> dict[str, float]:
    """A `marco` command's rate and peak memory, as the kernel counted it."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "marco_jax", *command],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"marco {' '.join(command)} ended with {process.returncode}")
    megabytes = nbytes / 1e6 / (time.perf_counter() - begin)
    return {"megabytes_per_second": round(megabytes), "peak_gib": usage.ru_maxrss / (1 << 20)}


def main() -> int:
    """Measures and prints JSON."""
    args = read_flags(
        __doc__,
        preset=("qwen2_7b", "a name of PRESETS"),
        directory=(tempfile.gettempdir(), "where there is room"),
    )
    config = PRESETS[args.preset]
    nbytes = 2 * config.num_parameters
    with tempfile.TemporaryDirectory(dir=args.directory, prefix="interop.") as folder:
        source, checkpoint, exported = (pathlib.Path(folder) / name for name in ("hf", "in", "out"))
        write_random(config, source)
        before = checksums(source)
        result = {"import": _run(nbytes, "import", f"--hf={source}", f"--out={checkpoint}")}
        shutil.rmtree(source)
        result["export"] = _run(nbytes, "export", f"--model={checkpoint}", f"--out={exported}")
        after = checksums(exported)
    names = before.keys() | after.keys()
    different = sum(before.get(name) != after.get(name) for name in names)
    print_json({"gigabytes": nbytes / 1e9, **result, "tensors": len(names), "different": different})
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
