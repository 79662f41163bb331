"""Greedy generation on a CPU beside `transformers.generate`.

    python -m benchmarks.decoding --batches=1,8,32 --rounds=3

Both have the same float32 weights of the small model, prompts of 128 tokens and 128 new ones, which
nothing ends. A is `Engine.generate`, from ids to ids, B is Qwen2ForCausalLM.generate; they take
turns, a batch each, and `ratio` is B's median seconds over A's. A's first call, which compiles, is
timed by itself.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.common import OURS

PROMPT, NEW = 128, 128
THEIRS = "transformers"

# New ids of every prompt.  # [batch, PROMPT] -> [batch, NEW]
Generate = Callable[[np.ndarray], np.ndarray]


def our_side(directory: str) -> Generate:
    """Our engine, as `marco generate` makes it."""
    from marco_jax.decoding.requests import GenerateRequest

    engine, params = common.load_engine(directory)

    def generate(prompts: np.ndarray) -> np.ndarray:
        asked = [GenerateRequest(prompt, NEW) for prompt in prompts.tolist()]
        return np.array([answer.ids for answer in engine.generate(params, asked)])

    return generate


def their_side(directory: str) -> Generate:
    """Qwen2ForCausalLM.generate."""
    import torch

    model = common.load_torch(directory)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    options |= {"eos_token_id": None, "pad_token_id": 0}

    def generate(prompts: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(prompts)
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return out[:, PROMPT:].numpy()

    return generate


def compare(batch: int, directory: str, rounds: int) -> dict[str, Any]:
    """One batch size."""
    ours, theirs = our_side(directory), their_side(directory)
    prompts = np.random.default_rng(0).integers(0, common.VOCABULARY, (batch, PROMPT))
    first = common.Times()
    first.call(lambda: ours(prompts))
    times = common.take_turns(
        {OURS: lambda: ours(prompts), THEIRS: lambda: theirs(prompts)}, rounds
    )
    return {
        "batch": batch,
        "ratio": round(times[THEIRS].median / times[OURS].median, 3),
        "tokens_per_second": {name: round(batch * NEW / t.median, 1) for name, t in times.items()},
        "first_call_with_compilation_seconds": round(first.median, 1),
        "equal_tokens": bool((times[OURS].answer == times[THEIRS].answer).all()),
    }


def main() -> None:
    """Measures and prints JSON."""
    args = common.read_flags(
        __doc__,
        batches=((1, 8, 32), "sequences generated at once"),
        rounds=(3, "turns of each side"),
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as directory:
        common.save_small_model(directory)
        common.print_json([compare(size, directory, args.rounds) for size in args.batches])


if __name__ == "__main__":
    main()
