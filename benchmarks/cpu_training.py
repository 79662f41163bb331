"""Training throughput of the small model on a CPU, beside PyTorch and transformers.

    python -m benchmarks.cpu_training --vocabularies=32000,151936 --rounds=5

Both sides do the same work in float32: forward, cross-entropy of every next token, backward,
gradient clipping at 1.0 and AdamW with weight decay, 8 sequences of 512 tokens a step. A is the
step of `marco train`, B Qwen2ForCausalLM in a plain loop with fused AdamW; it warms up with eager
and with sdpa attention, and goes on with the faster one. Each side lives in a process of its own
and waits while the other runs; they take turns of a few steps, each of which is printed, until
`--minutes` have passed for a vocabulary. `ratio` is B's median seconds of a step over A's.
`gigaflops` is the rate of A's model FLOPs, which the machine's matrix products bound. A asks the
allocator to keep freed memory, as `marco train` does on a CPU; B runs as a user's process does by
default.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import OURS, Peer, Times, packed_batch, print_json, read_flags, training_step
from marco_jax.model.qwen2_config import PRESETS

ROWS, LENGTH = 8, 512
LEARNING_RATE, BETAS, EPSILON = 1e-4, (0.9, 0.95), 1e-8
WEIGHT_DECAY, CLIP_NORM = 0.1, 1.0
# Steps before the clock starts: compilation, and then until the heap has grown to its full size.
WARM_UP_STEPS = 3
ATTENTIONS = ("eager", "sdpa")

# Runs one step with the named kind of attention and returns its loss, having waited for all of it.
Step = Callable[[str], float]


def jax_step(model: Any) -> Step:
    """Our trainer, as `marco train` assembles it."""
    import jax

    from marco_jax.runtime.host_memory import keep_freed_memory
    from marco_jax.training.defaults import training_config

    keep_freed_memory()
    config = training_config()
    config.batch.update(length=LENGTH, sequences_per_chip=ROWS)
    config.optimizer.update(
        b1=BETAS[0], b2=BETAS[1], eps=EPSILON, weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM
    )
    for stage in config.stage.values():
        stage.update(learning_rate=LEARNING_RATE, schedule="constant", warmup_share=0.0)
    train, seeds = training_step(config, model, jax.devices()[0]), itertools.count()

    def step(_: str) -> float:
        metrics = train(packed_batch(ROWS, LENGTH, model.vocab_size, seed=next(seeds)))
        return float(metrics.loss_sums.sum() / metrics.token_counts.sum())

    return step


def torch_step(config: Any) -> Step:
    """Qwen2ForCausalLM of transformers in a plain training loop."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    fields = transformers.Qwen2Config(**config.to_huggingface())
    model = transformers.Qwen2ForCausalLM(fields).float().train()
    rates = {"lr": LEARNING_RATE, "betas": BETAS, "eps": EPSILON, "weight_decay": WEIGHT_DECAY}
    # The sums of `fused` are the same; without it PyTorch walks memory once an operation.
    optimizer = torch.optim.AdamW(model.parameters(), **rates, fused=True)
    seeds = itertools.count()

    def step(attention: str) -> float:
        model.set_attn_implementation(attention)
        batch = packed_batch(ROWS, LENGTH, config.vocab_size, seed=next(seeds))
        tokens, targets = (
            torch.from_numpy(ids.astype(np.int64)) for ids in (batch.tokens, batch.targets)
        )
        # `labels` alone would be shifted inside, and lose a target a row: these are shifted.
        loss = model(tokens, labels=targets, shift_labels=targets, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def serve(side: str, vocabulary: str) -> None:
    """A worker: reads lines "ATTENTION STEPS"; answers with times, the last loss and its memory."""
    model = dataclasses.replace(PRESETS["small"], vocab_size=int(vocabulary))
    step = {"jax": jax_step, "torch": torch_step}[side](model)
    for line in sys.stdin:
        attention, steps = line.split()
        times = Times()
        for _ in range(int(steps)):
            times.call(lambda attention=attention: step(attention))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(dataclasses.asdict(times) | {"max_rss_gib": memory}), flush=True)


def compare(vocabulary: int, args: argparse.Namespace) -> dict[str, Any]:
    """One size of the vocabulary."""
    command = (sys.executable, "-m", "benchmarks.cpu_training", "--worker")
    ours, theirs = (Peer(*command, side, str(vocabulary)) for side in ("jax", "torch"))
    begin, times, last = time.perf_counter(), {}, {}

    def turn(name: str, steps: int) -> list[float]:
        last[name] = (ours if name == OURS else theirs).ask(f"{name} {steps}")
        found = last[name]["seconds"]
        print(vocabulary, name, *(f"{one:.2f}" for one in found), "s", file=sys.stderr, flush=True)
        return found

    warm = {name: turn(name, WARM_UP_STEPS)[-1] for name in (OURS, *ATTENTIONS)}
    fastest = min(ATTENTIONS, key=warm.__getitem__)
    times = {name: Times() for name in (OURS, fastest)}
    for number in range(args.rounds):
        if number and time.perf_counter() - begin > 60 * args.minutes:
            break
        for name, found in times.items():
            found.seconds += turn(name, args.steps)
    ours.close()
    theirs.close()
    model = dataclasses.replace(PRESETS["small"], vocab_size=vocabulary)
    operations = ROWS * LENGTH * model.flops_per_token(LENGTH)
    return {
        "vocabulary": vocabulary,
        "gigaflops": round(operations / times[OURS].median / 1e9),
        "ratio": round(times[fastest].median / times[OURS].median, 3),
        "tokens_per_second": {name: round(ROWS * LENGTH / t.median) for name, t in times.items()},
        "last_loss": {name: found["answer"] for name, found in last.items()},
        "max_rss_gib": {name: round(last[name]["max_rss_gib"], 2) for name in (OURS, fastest)},
    }


def main() -> None:
    """Measures, or serves as one side."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if sys.argv[1:2] == ["--worker"]:
        serve(*sys.argv[2:])
        return
    args = read_flags(
        __doc__,
        vocabularies=((32_000, 151_936), "sizes"),
        rounds=(5, "turns of each side at most"),
        steps=(1, "steps a turn"),
        minutes=(4.5, "for each vocabulary: no turn begins later"),
    )
    for size in args.vocabularies:
        print_json(compare(size, args))


if __name__ == "__main__":
    main()
