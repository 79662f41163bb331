"""Training MFU and decoding throughput of the small Qwen2 sizes on one NVIDIA GPU.

    python -m benchmarks.gpu_training --models=qwen2_0_5b,qwen2_1_5b --lengths=4096,8192

Training is that of `marco train`: bfloat16 on float32 master parameters, AdamW, rows of packed
documents of random tokens. MFU counts the FLOPs of `Qwen2Config.flops_per_token`, a whole row's
causal attention, as training logs it, though packed documents attend to less. Decoding is greedy,
on bfloat16 parameters, through the kernels that the engine calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from marco_jax.decoding import decode
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.sampling import Sampling
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.training.assemble import create_sharding, create_trainer
from marco_jax.training.defaults import training_config
from marco_jax.training.metrics_log import PEAK_FLOPS
from marco_jax.training.step import Batch

# Runs before the clock starts: compilation, and a first use of every buffer.
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


def median_seconds(run: Callable[[], object], times: int) -> float:
    """Median wall-clock seconds of `run`, which must return what to wait for."""
    seconds = []
    for _ in range(WARM_UP + times):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def packed_batch(rows: int, length: int, documents: int, vocab: int) -> Batch:
    """Random tokens; a row holds `documents` documents of random lengths and no padding."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, vocab, (rows, length + 1), dtype=np.int32)
    segment_ids = np.ones((rows, length), np.int32)
    positions = np.empty_like(segment_ids)
    for row in range(rows):
        cuts = np.sort(random.choice(np.arange(1, length), documents - 1, replace=False))
        sizes = np.diff([0, *cuts, length])
        segment_ids[row] = np.repeat(np.arange(1, documents + 1), sizes)
        positions[row] = np.concatenate([np.arange(size) for size in sizes])
    return Batch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        positions=positions,
        segment_ids=segment_ids,
        loss_weights=np.ones((rows, length), np.float32),
        source_ids=np.zeros_like(segment_ids),
    )


def training(model: Qwen2Config, length: int, device: jax.Device, args: argparse.Namespace) -> dict:
    """Tokens/s, MFU and memory of the training step at one length."""
    rows = max(1, args.tokens // length)
    config = training_config()
    config.dtype, config.remat = "bfloat16", args.remat
    config.batch.update(
        length=length, sequences_per_chip=rows, accumulation_steps=args.accumulation_steps
    )
    trainer = create_trainer(config, model, create_sharding(config, [device]), num_sources=1)
    batch = packed_batch(rows, length, args.documents, model.vocab_size)
    batch = jax.device_put(batch, trainer.batch_sharding)
    state = trainer.init(seed=0)

    def step() -> object:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        return metrics

    seconds = median_seconds(step, args.steps)
    rate = rows * length / seconds
    return {
        "length": length,
        "rows": rows,
        "step_seconds": round(seconds, 4),
        "tokens_per_second": round(rate),
        "mfu": round(rate * model.flops_per_token(length) / PEAK_FLOPS[device.device_kind], 4),
        "peak_memory_gib": peak_memory(device),
    }


def decoding(model: Qwen2Config, batch: int, device: jax.Device, args: argparse.Namespace) -> dict:
    """New tokens/s over all rows; the prompt's prefill is timed apart."""
    mesh = Sharding(create_mesh({}, [device]))
    runtime = Runtime.create(model, model.vocab_size, mesh, jnp.bfloat16)
    with jax.default_device(device):
        params = jax.jit(lambda: _half(init_params(model, seed=0)))()
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
        views = decode.layer_views(params, runtime)
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


def _half(params: dict) -> dict:
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)


def peak_memory(device: jax.Device) -> float | None:
    """GiB held at most since the process started, or None where the backend keeps no count."""
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return peak and round(peak / 2**30, 2)


def attempt(measure: Callable[..., dict], *args: object, **label: object) -> dict:
    """What `measure` returns, or why there is nothing (a size that does not fit)."""
    try:
        return measure(*args)
    except jax.errors.JaxRuntimeError as error:
        return label | {"error": str(error).splitlines()[0]}


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="qwen2_0_5b,qwen2_1_5b", help="names of PRESETS")
    parser.add_argument("--lengths", default="4096,8192")
    parser.add_argument("--tokens", type=int, default=16_384, help="tokens a step")
    parser.add_argument("--documents", type=int, default=4, help="documents packed in a row")
    parser.add_argument("--remat", default="minimal")
    parser.add_argument("--accumulation_steps", type=int, default=1)
    parser.add_argument("--batches", default="1,8,32", help="batch sizes of decoding")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    args = parser.parse_args()
    device = find_gpu()
    results = []
    for name in args.models.split(","):
        model = PRESETS[name]
        print(f"{name}: training", file=sys.stderr, flush=True)
        trained = [
            attempt(training, model, int(length), device, args, length=int(length))
            for length in args.lengths.split(",")
        ]
        print(f"{name}: decoding", file=sys.stderr, flush=True)
        decoded = [
            attempt(decoding, model, int(batch), device, args, batch=int(batch))
            for batch in args.batches.split(",")
        ]
        results.append({"model": name, "training": trained, "decoding": decoded})
    report = {"device": device.device_kind, "remat": args.remat, "results": results}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
