"""Training throughput of the small model on a CPU, beside PyTorch and transformers.

    python -m benchmarks.cpu_training --vocab=32000,151936 --rounds=5 --steps=2

Both sides do the same work in float32: forward, cross-entropy of every next token, backward,
gradient clipping at 1.0 and AdamW with weight decay, 8 rows of 512 tokens a step. Each side lives
in a process of its own and waits while the other runs; they take turns of a few steps, so that
whatever else the machine does falls on both. PyTorch runs with fused AdamW, with eager and with
sdpa attention, and the faster one counts. What is printed is a ratio of medians; the seconds are
there to judge the noise, and `cpu_ratio` is the same of CPU seconds, which other work on the
machine disturbs less.

Our side asks the allocator to keep freed memory, as `marco train` does on a CPU; PyTorch's runs as
a user's process does by default. `--pytorch_keeps_memory` asks the same for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from marco_jax.runtime.host_memory import keep_freed_memory

ROWS, LENGTH = 8, 512
LEARNING_RATE, BETAS, EPSILON = 1e-4, (0.9, 0.95), 1e-8
WEIGHT_DECAY, CLIP_NORM = 0.1, 1.0
OURS = "marco_jax"
# Steps before the clock starts: compilation, and then until the heap has grown to its full size.
WARM_UP_STEPS = 5

# Runs one step with the named kind of attention and returns its loss, having waited for all of it.
Step = Callable[[str], float]


def token_batches(vocab: int) -> Iterator[np.ndarray]:
    """Endless int32 [ROWS, LENGTH + 1], the same for every side."""
    random = np.random.default_rng(0)
    while True:
        yield random.integers(0, vocab, (ROWS, LENGTH + 1), dtype=np.int32)


def jax_step(vocab: int) -> Step:
    """Our trainer, as `marco train` assembles it."""
    import jax

    from marco_jax.model.qwen2_config import PRESETS
    from marco_jax.training.assemble import create_sharding, create_trainer
    from marco_jax.training.defaults import training_config
    from marco_jax.training.step import Batch

    config = training_config()
    config.batch.update(length=LENGTH, sequences_per_chip=ROWS)
    config.optimizer.update(
        b1=BETAS[0], b2=BETAS[1], eps=EPSILON, weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM
    )
    for stage in config.stage.values():
        stage.update(learning_rate=LEARNING_RATE, schedule="constant", warmup_share=0.0)
    model = dataclasses.replace(PRESETS["small"], vocab_size=vocab)
    sharding = create_sharding(config, jax.devices()[:1])
    trainer = create_trainer(config, model, sharding, num_sources=1)
    state, batches = trainer.init(seed=0), token_batches(vocab)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH))

    def step(_: str) -> float:
        nonlocal state
        tokens = next(batches)
        batch = Batch(
            tokens=tokens[:, :-1],
            targets=tokens[:, 1:],
            positions=positions,
            segment_ids=np.ones_like(positions),
            loss_weights=np.ones(positions.shape, np.float32),
            source_ids=np.zeros_like(positions),
        )
        state, metrics = trainer.step(state, jax.device_put(batch, trainer.batch_sharding))
        jax.block_until_ready(state)
        return float(metrics.loss_sums.sum() / metrics.token_counts.sum())

    return step


def torch_step(vocab: int) -> Step:
    """Qwen2ForCausalLM of transformers in a plain training loop."""
    import torch
    import transformers

    from marco_jax.model.qwen2_config import PRESETS

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    fields = dataclasses.replace(PRESETS["small"], vocab_size=vocab).to_huggingface()
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**fields)).float().train()
    # The sums of `fused` are the same; without it PyTorch walks memory once an operation.
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=BETAS,
        eps=EPSILON,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    batches = token_batches(vocab)

    def step(attention: str) -> float:
        model.set_attn_implementation(attention)
        tokens = torch.from_numpy(next(batches).astype(np.int64))
        targets = tokens[:, 1:].contiguous()
        # `labels` alone would be shifted inside, and lose a target a row: these are shifted.
        loss = model(tokens[:, :-1], labels=targets, shift_labels=targets, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def serve(step: Step) -> None:
    """A worker: reads "ATTENTION STEPS" lines, answers each with a JSON line."""
    for line in sys.stdin:
        attention, steps = line.split()
        answer = {"seconds": [], "cpu_seconds": []}
        for _ in range(int(steps)):
            start, cpu_start = time.perf_counter(), time.process_time()
            answer["loss"] = step(attention)
            answer["seconds"].append(time.perf_counter() - start)
            answer["cpu_seconds"].append(time.process_time() - cpu_start)
        answer["max_rss_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(answer), flush=True)


class Worker:
    """One side in a process of its own, idle until asked."""

    def __init__(self, side: str, vocab: int, args: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.cpu_training", "--worker", side]
        command += [f"--vocab={vocab}", f"--threads={args.threads}"]
        command += ["--pytorch_keeps_memory"] if args.pytorch_keeps_memory else []
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, attention: str, steps: int) -> dict:
        """Runs some steps and returns what the worker says of them."""
        print(attention, steps, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker stopped: its error is above")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(vocab: int, args: argparse.Namespace) -> dict:
    """Interleaved medians of one vocabulary."""
    attentions = args.attention.split(",")
    ours, theirs = Worker("jax", vocab, args), Worker("torch", vocab, args)
    sides = {OURS: (ours, "-"), **{name: (theirs, name) for name in attentions}}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers = {}
    try:
        for worker, attention in sides.values():
            worker.run(attention, WARM_UP_STEPS)
        for _ in range(args.rounds):
            for name, (worker, attention) in sides.items():
                answers[name] = worker.run(attention, args.steps)
                seconds[name] += answers[name]["seconds"]
                cpu_seconds[name] += answers[name]["cpu_seconds"]
    finally:
        ours.close()
        theirs.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cpu_medians = {name: statistics.median(values) for name, values in cpu_seconds.items()}
    fastest = min(attentions, key=medians.__getitem__)
    return {
        "vocab_size": vocab,
        "ratio": round(medians[fastest] / medians[OURS], 3),
        "cpu_ratio": round(cpu_medians[fastest] / cpu_medians[OURS], 3),
        "pytorch_attention": fastest,
        "tokens_per_second": {name: round(ROWS * LENGTH / m) for name, m in medians.items()},
        "step_seconds": {name: [round(s, 2) for s in values] for name, values in seconds.items()},
        "step_cpu_seconds": {
            name: [round(s, 2) for s in values] for name, values in cpu_seconds.items()
        },
        "last_loss": {name: answer["loss"] for name, answer in answers.items()},
        "max_rss_gib": {
            "marco_jax": round(answers[OURS]["max_rss_gib"], 2),
            "pytorch": round(answers[fastest]["max_rss_gib"], 2),
        },
    }


def main() -> None:
    """Measures, or serves as one side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", default="32000,151936", help="vocabulary sizes")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--threads", type=int, default=0, help="cores for each side; 0: all")
    parser.add_argument("--attention", default="eager,sdpa", help="what PyTorch runs with")
    parser.add_argument(
        "--pytorch_keeps_memory", action="store_true", help="the allocator's setting for it too"
    )
    parser.add_argument("--worker", choices=("jax", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        # Before any library counts the cores: what both sides' thread pools go by.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: args.threads or len(cores)])
        if args.worker == "jax" or args.pytorch_keeps_memory:
            keep_freed_memory()
        vocab = int(args.vocab)
        serve(jax_step(vocab) if args.worker == "jax" else torch_step(vocab))
        return
    results = [compare(int(vocab), args) for vocab in args.vocab.split(",")]
    print(json.dumps({"tokens_per_step": ROWS * LENGTH, "results": results}, indent=2))


if __name__ == "__main__":
    main()
