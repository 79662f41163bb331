"""MFU, tokens/s and memory of training the small Qwen2 sizes on one NVIDIA GPU.

    python -m benchmarks.gpu_training --models=qwen2_0_5b,qwen2_1_5b --lengths=4096,8192

There is nothing beside it: medians are of --steps steps, one after the other. A step is that of
`marco train`: bfloat16 on float32 parameters, remat "minimal", AdamW, sequences of four packed
documents of random tokens. MFU counts the FLOPs of `Qwen2Config.flops_per_token`, with the causal
attention of a whole sequence, as training logs it, though packed documents attend to less. It needs
jax, flax, optax, orbax and numpy alone: the step is put together from its parts, without a config.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import packed_batch, print_json, read_flags, stepper, take_turns
from marco_jax.model.mesh import DEFAULT_RULES, Sharding, create_mesh
from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.objectives.losses import LossOptions, default_logits_mib
from marco_jax.runtime.chips import PEAK_FLOPS
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.step import StepOptions, Trainer

# Steps before the clock starts: compilation, and a first use of every buffer.
WARM_UP = 2
DOCUMENTS = 4  # packed in a sequence
# As in training/defaults.py.
ADAMW = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}


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


def create_bare_trainer(model: Qwen2Config, device: jax.Device) -> Trainer:
    """The step that `marco train` makes of its defaults with dtype=bfloat16, on one device."""
    sharding = Sharding(create_mesh({"fsdp": 1}, [device]), DEFAULT_RULES)
    schedule = StageSchedule(steps=1000, peak=1e-5).build()
    options = StepOptions(
        dtype=jnp.dtype("bfloat16"),
        remat="minimal",
        loss=LossOptions(logits_mib=default_logits_mib(sharding.platform)),
    )
    optimizer = create_optimizer(model, schedule, **ADAMW)
    return Trainer(model, optimizer, schedule, sharding, 1, options)


def measure(name: str, length: int, device: jax.Device, args: argparse.Namespace) -> dict[str, Any]:
    """A model at one length; where it does not fit, the error."""
    model, rows = PRESETS[name], max(1, args.tokens // length)
    result: dict[str, Any] = {"model": name, "length": length, "rows": rows}
    try:
        step = stepper(create_bare_trainer(model, device))
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
