"""Training MFU and decoding throughput of the small Qwen2 sizes on one NVIDIA GPU.

    python -m benchmarks.gpu_training --models=qwen2_0_5b,qwen2_1_5b --lengths=4096,8192

Nothing else is timed beside it: medians are of --steps calls, one after the other. Training is the
step of `marco train`: bfloat16 on float32 parameters, AdamW, sequences of packed documents of
random tokens. MFU counts the FLOPs of `Qwen2Config.flops_per_token`, with the causal attention of a
whole sequence, as training logs it, though packed documents attend to less. Decoding is greedy, on
bfloat16 parameters, through the kernels that the engine calls; the prefill is timed by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import packed_batch, take_turns, training_step
from marco_jax.decoding import decode
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.requests import Sampling
from marco_jax.model.cpu import layer_views
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.training.defaults import training_config
from marco_jax.training.metrics_log import PEAK_FLOPS

# Calls before the clock starts: compilation, and a first use of every buffer.
WARM_UP = 2
PROMPT, NEW = 128, 128


def find_gpu() -> jax.Device:
    """The first NVIDIA GPU.

    Raises:
        SystemExit: there is none, or its peak is not known.
    """
    try:
        device = jax.devices("cuda")[0]
    except RuntimeError:
        sys.exit("no NVIDIA GPU here: run this where jax[cuda12] finds one")
    if device.device_kind not in PEAK_FLOPS:
        sys.exit(f"the peak of {device.device_kind!r} is not known: add it to PEAK_FLOPS")
    return device


def median_seconds(run: Callable[[], Any], times: int) -> float:
    """Median wall-clock seconds of `run`, which must return what to wait for."""
    return take_turns({"": lambda: jax.block_until_ready(run())}, times, WARM_UP)[""].median


def training(model: Qwen2Config, length: int, device: jax.Device, args: argparse.Namespace) -> dict:
    """Tokens/s, MFU and memory of the training step at one length."""
    rows = max(1, args.tokens // length)
    config = training_config()
    config.dtype, config.remat = "bfloat16", args.remat
    config.batch.update(
        length=length, sequences_per_chip=rows, accumulation_steps=args.accumulation_steps
    )
    step = training_step(config, model, device)
    batch = jax.device_put(packed_batch(rows, length, model.vocab_size, args.documents), device)
    seconds = median_seconds(lambda: step(batch), args.steps)
    rate = rows * length / seconds
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {
        "length": length,
        "rows": rows,
        "step_seconds": round(seconds, 4),
        "tokens_per_second": round(rate),
        "mfu": round(rate * model.flops_per_token(length) / PEAK_FLOPS[device.device_kind], 4),
        # Since the process started.
        "peak_memory_gib": round(peak / 2**30, 2),
    }


def decoding(model: Qwen2Config, batch: int, device: jax.Device, args: argparse.Namespace) -> dict:
    """New tokens/s over all sequences."""
    mesh = Sharding(create_mesh({}, [device]))
    runtime = Runtime.create(model, model.vocab_size, mesh, jnp.bfloat16)
    with jax.default_device(device):
        params = jax.jit(
            lambda: jax.tree.map(lambda x: x.astype(jnp.bfloat16), init_params(model, seed=0))
        )()
        tokens = jax.random.randint(jax.random.key(0), (batch, PROMPT), 0, model.vocab_size)
        lengths = jnp.full((batch,), PROMPT, jnp.int32)
        keys = jax.random.split(jax.random.key(0), batch)
        rows, counts = jnp.arange(batch, dtype=jnp.int32), jnp.full((batch,), NEW, jnp.int32)
    new = decode.NewRows(tokens, lengths, rows, counts, keys)
    fixed = {"runtime": runtime, "sampling": Sampling()}

    def prefill() -> decode.DecodeState:
        state = decode.start(runtime=runtime, batch=batch, slots=PROMPT + NEW)
        return decode.fill(params, state, new, **fixed)

    def generate() -> object:
        # No id ends a row: all emit NEW tokens.
        views = layer_views(params, runtime.sharding)
        enough = jnp.int32(batch)
        return decode.decode(params, views, prefill(), enough, steps=NEW, eos_ids=(-2,), **fixed)[0]

    first, whole = median_seconds(prefill, args.steps), median_seconds(generate, args.steps)
    return {
        "batch": batch,
        "prompt": PROMPT,
        "new_tokens": NEW,
        "prefill_seconds": round(first, 4),
        "tokens_per_second": round(batch * NEW / (whole - first)),
        "tokens_per_second_with_prefill": round(batch * NEW / whole),
    }


def main() -> None:
    """Prints one JSON object; where a size does not fit, its error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="qwen2_0_5b,qwen2_1_5b", help="names of PRESETS")
    parser.add_argument("--lengths", default="4096,8192")
    parser.add_argument("--tokens", type=int, default=16_384, help="tokens a step")
    parser.add_argument("--documents", type=int, default=4, help="documents packed in a sequence")
    parser.add_argument("--remat", default="minimal")
    parser.add_argument("--accumulation_steps", type=int, default=1)
    parser.add_argument("--batches", default="1,8,32", help="batch sizes of decoding")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    args = parser.parse_args()
    device = find_gpu()
    results = []
    for name in args.models.split(","):
        result: dict[str, Any] = {"model": name}
        for measure, sizes in ((training, args.lengths), (decoding, args.batches)):
            rows = result[measure.__name__] = []
            for size in map(int, sizes.split(",")):
                print(f"{name}: {measure.__name__}, {size}", file=sys.stderr, flush=True)
                try:
                    rows.append(measure(PRESETS[name], size, device, args))
                except jax.errors.JaxRuntimeError as error:
                    rows.append({"size": size, "error": str(error).splitlines()[0]})
        results.append(result)
    report = {"device": device.device_kind, "remat": args.remat, "results": results}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
