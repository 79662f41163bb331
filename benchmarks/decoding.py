"""Greedy generation on a CPU beside `transformers.generate`, and the memory of decoding programs.

    python -m benchmarks.decoding --batches=1,8,32 --rounds=3 [--vocabulary=32000]
    python -m benchmarks.decoding --memory=qwen2_0_5b --batches=8

Speed: the same float32 weights of the small model, prompts of 128 tokens and 128 new ones, which
nothing ends. A is `Engine.generate`, from ids to ids, B is Qwen2ForCausalLM.generate; they take
turns, a batch each, and `ratio` is B's median over A's. The first call, which compiles, is timed by
itself.

Memory (--memory, a model's preset): what XLA allocates at the peak of each program at 256 tokens,
compiled without weights: arguments, results that do not take the place of arguments, temporaries.
It is compared with the parameters and the keys and values of all sequences, which any decoder
holds; `within` says whether the peak is at most 1.1 times as much.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import (
    OURS,
    VOCABULARY,
    Ids,
    Times,
    load_torch,
    ratios,
    save_small_model,
    take_turns,
)

PROMPT, NEW = 128, 128
BOUND = 1.1
THEIRS = "transformers"

Generate = Callable[[np.ndarray], np.ndarray]


def our_side(directory: str) -> Generate:
    """Our engine, as `marco generate` makes it."""
    from marco_jax.decoding.engine import Engine
    from marco_jax.decoding.requests import GenerateRequest
    from marco_jax.weights.huggingface import load_huggingface

    config, params = load_huggingface(directory)
    engine = Engine(config, Ids(config.vocab_size), max_length=4096)

    def generate(prompts: np.ndarray) -> np.ndarray:
        asked = [GenerateRequest(prompt, NEW) for prompt in prompts.tolist()]
        return np.array([answer.ids for answer in engine.generate(params, asked)])

    return generate


def their_side(directory: str) -> Generate:
    """Qwen2ForCausalLM.generate."""
    import torch

    model = load_torch(directory)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    options |= {"eos_token_id": None, "pad_token_id": 0}

    def generate(prompts: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(prompts.astype(np.int64))
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return out[:, PROMPT:].numpy()

    return generate


def compare(batch: int, directory: str, rounds: int, vocabulary: int) -> dict[str, Any]:
    """One batch size."""
    ours, theirs = our_side(directory), their_side(directory)
    prompts = np.random.default_rng(0).integers(0, vocabulary, (batch, PROMPT)).astype(np.int32)
    first = Times()
    first.call(lambda: ours(prompts))
    times = take_turns({OURS: lambda: ours(prompts), THEIRS: lambda: theirs(prompts)}, rounds)
    return {
        "batch": batch,
        **ratios(times, OURS, THEIRS),
        "tokens_per_second": {name: round(batch * NEW / t.median, 1) for name, t in times.items()},
        "seconds": {name: [round(s, 2) for s in t.seconds] for name, t in times.items()},
        "first_call_with_compilation_seconds": round(first.median, 1),
        "equal_tokens": bool((times[OURS].answer == times[THEIRS].answer).all()),
    }


def memory(preset: str, batch: int) -> list[dict[str, Any]]:
    """A row for each program of the engine."""
    from marco_jax.decoding.abstract import abstract_kernels
    from marco_jax.model.qwen2_config import PRESETS

    config = PRESETS[preset]
    parameters = 4 * config.num_parameters
    heads = config.num_key_value_heads * config.head_dim
    cache = 4 * 2 * config.num_hidden_layers * (PROMPT + NEW) * heads
    rows = []
    for name, kernel, arguments in abstract_kernels(config, None, batch, PROMPT + NEW):
        found = kernel.lower(*arguments).compile().memory_analysis()
        peak = found.argument_size_in_bytes + found.output_size_in_bytes
        peak += found.temp_size_in_bytes - found.alias_size_in_bytes
        # A prefix is computed for one sequence at a time.
        floor = parameters + cache * (1 if name == "extend" else batch)
        rows.append(
            {
                "program": name,
                "batch": batch,
                "peak_bytes": peak,
                "temporary_bytes": found.temp_size_in_bytes,
                "parameters_and_cache_bytes": floor,
                "ratio": round(peak / floor, 3),
                "within": bool(peak <= BOUND * floor),
            }
        )
    return rows


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,8,32", help="sequences generated at once")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--memory", metavar="PRESET", help="of this model, instead of speed")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    batches = [int(size) for size in args.batches.split(",")]
    if args.memory:
        print(json.dumps([row for size in batches for row in memory(args.memory, size)], indent=2))
        return
    with tempfile.TemporaryDirectory() as directory:
        save_small_model(directory, args.vocabulary)
        results = [compare(size, directory, args.rounds, args.vocabulary) for size in batches]
    shape = {"prompt": PROMPT, "new_tokens": NEW, "vocabulary": args.vocabulary}
    print(json.dumps({**shape, "results": results}, indent=2))


if __name__ == "__main__":
    main()
