"""Decoding on one device: tokens a second of `Engine.generate`, in bfloat16.

    python -m benchmarks.gpu.decode --models=qwen2_0_5b,qwen2_1_5b --batches=1,32,128

Random weights, prompts of --prompt random tokens, --new tokens which nothing ends. The first call
compiles and is timed by itself. `gigabytes_per_second` counts the parameters once for each decoded
token of a row: what the memory must deliver at the least.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Ids, Times, print_json, read_flags, take_turns
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import PRESETS


def measure(name: str, batch: int, prompt: int, new: int, rounds: int) -> dict[str, Any]:
    """One model at one batch size."""
    config = PRESETS[name]
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), init_params(config, seed=0))
    engine = Engine(
        *(config, Ids()),
        dtype=jnp.bfloat16,
        max_length=prompt + new + 1,
        tokens_per_batch=int(1.25 * (prompt + new)) * batch,
    )
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (batch, prompt))
    asked = [GenerateRequest(row, new) for row in ids.tolist()]
    first = Times()
    first.call(lambda: engine.generate(params, asked))
    seconds = take_turns({"": lambda: engine.generate(params, asked)}, rounds)[""].median
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    return {
        "model": name,
        "batch": batch,
        "tokens_per_second": round(batch * new / seconds, 1),
        "gigabytes_per_second": round(new / seconds * size / 1e9, 1),
        "first_call_seconds": round(first.median, 1),
    }


def main() -> None:
    """Measures and prints JSON."""
    args = read_flags(
        __doc__,
        models=(("qwen2_0_5b", "qwen2_1_5b"), "names of PRESETS"),
        batches=((1, 32, 128), "prompts at once"),
        prompt=(128, "tokens of a prompt"),
        new=(128, "tokens of an answer"),
        rounds=(3, "timed calls"),
    )
    rows = [
        measure(name, batch, args.prompt, args.new, args.rounds)
        for name in args.models
        for batch in args.batches
    ]
    print_json({"device": jax.devices()[0].device_kind, "results": rows})


if __name__ == "__main__":
    main()
