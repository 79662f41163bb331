"""MFU, tokens/s and memory of training the small Qwen2 sizes on one NVIDIA GPU.

    python -m benchmarks.gpu_training --models=qwen2_0_5b,qwen2_1_5b --lengths=4096,8192

There is nothing beside it: medians are of --steps steps, one after the other. A step is that of
`marco train`: bfloat16 on float32 parameters, remat "minimal", AdamW, sequences of four packed
documents of random tokens. MFU counts the FLOPs of `Qwen2Config.flops_per_token`, with the causal
attention of a whole sequence, as training logs it, though packed documents attend to less.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import jax

from benchmarks.common import packed_batch, print_json, read_flags, take_turns, training_step
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.training.defaults import training_config
from marco_jax.training.metrics_log import PEAK_FLOPS

# Steps before the clock starts: compilation, and a first use of every buffer.
WARM_UP = 2
DOCUMENTS = 4  # packed in a sequence


def find_device(platform: str) -> jax.Device:
    """The first NVIDIA GPU; of "cpu" a CPU, to try the script where there is no GPU.

    Raises:
        SystemExit: there is none, or a GPU's peak is not known.
    """
    try:
        device = jax.devices(platform)[0]
    except RuntimeError:
        sys.exit("no NVIDIA GPU here: run this where jax[cuda12] finds one")
    if device.device_kind not in PEAK_FLOPS and platform != "cpu":
        sys.exit(f"the peak of {device.device_kind!r} is not known: add it to PEAK_FLOPS")
    return device


def measure(name: str, length: int, device: jax.Device, args: argparse.Namespace) -> dict[str, Any]:
    """A model at one length; where it does not fit, the error."""
    model, rows = PRESETS[name], max(1, args.tokens // length)
    config = training_config()
    config.dtype, config.remat = "bfloat16", "minimal"
    config.batch.update(length=length, sequences_per_chip=rows)
    result: dict[str, Any] = {"model": name, "length": length, "rows": rows}
    try:
        step = training_step(config, model, device)
        batch = jax.device_put(packed_batch(rows, length, model.vocab_size, DOCUMENTS), device)
        seconds = take_turns({"": lambda: step(batch)}, args.steps, WARM_UP)[""].median
    except jax.errors.JaxRuntimeError as error:
        return result | {"error": str(error).splitlines()[0]}
    rate = rows * length / seconds
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    peak_flops = PEAK_FLOPS.get(device.device_kind)
    return result | {
        "tokens_per_second": round(rate),
        "mfu": peak_flops and round(rate * model.flops_per_token(length) / peak_flops, 4),
        # Since the process started.
        "peak_memory_gib": round(peak / 2**30, 2),
    }


def main() -> None:
    """Measures and prints JSON."""
    args = read_flags(
        __doc__,
        models=(("qwen2_0_5b", "qwen2_1_5b"), "names of PRESETS"),
        lengths=((4096, 8192), "of a sequence"),
        tokens=(16_384, "tokens a step"),
        steps=(10, "timed steps"),
        platform=("cuda", "or cpu, without MFU"),
    )
    device = find_device(args.platform)
    results = [measure(name, size, device, args) for name in args.models for size in args.lengths]
    print_json({"device": device.device_kind, "results": results})


if __name__ == "__main__":
    main()
