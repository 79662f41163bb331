"""Greedy generation on a CPU beside `transformers.generate`.

    python -m benchmarks.decoding --batches=1,8,32 --rounds=3 --vocabulary=32000

Both have the same float32 weights of the small model, prompts of 128 tokens and 128 new ones, which
nothing ends. A is `Engine.generate`, from ids to ids, B is Qwen2ForCausalLM.generate; they take
turns, a batch each, and `ratio` is B's median seconds over A's. A's first call, which compiles, is
timed by itself.

    python -m benchmarks.decoding --model=DIR --data=BENCHMARKS --drafts=2,4,8 --batches=1,8

compares `Engine.generate` with itself, with drafts and without, on a trained model: MGSM with eight
worked examples, and translation of FLORES paragraphs after one. `ratio` is the seconds without
drafts over those with them. `filled_share` is the share of row-steps in which a row was generating
(continuous batching), `accepted_share` that of drafts that were right.
"""

from __future__ import annotations

import argparse
import itertools
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


def compare(batch: int, vocabulary: int, directory: str, rounds: int) -> dict[str, Any]:
    """One batch size."""
    ours, theirs = our_side(directory), their_side(directory)
    prompts = np.random.default_rng(0).integers(0, vocabulary, (batch, PROMPT))
    first = common.Times()
    first.call(lambda: ours(prompts))
    times = common.take_turns(
        {OURS: lambda: ours(prompts), THEIRS: lambda: theirs(prompts)}, rounds
    )
    return {
        "batch": batch,
        "vocabulary": vocabulary,
        "ratio": round(times[THEIRS].median / times[OURS].median, 3),
        "tokens_per_second": {name: round(batch * NEW / t.median, 1) for name, t in times.items()},
        "first_call_with_compilation_seconds": round(first.median, 1),
        "equal_tokens": bool((times[OURS].answer == times[THEIRS].answer).all()),
    }


# Name: (benchmark, language, format, shots).
PROMPTS = {
    "mgsm": ("mgsm", "en", "native_cot", 8),
    "translation": ("flores_passages", "en-de", "harness", 1),
}


def compare_drafts(name: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """One set of prompts: `args.prompts` of them on `batch` rows, or `batch` if that is more."""
    from marco_jax.decoding.engine import Engine
    from marco_jax.decoding.requests import GenerateRequest, Sampling
    from marco_jax.evaluation.benchmarks.prompts import prompts
    from marco_jax.weights.models import load_model

    loaded = load_model(args.model)
    task, language, form, shots = PROMPTS[name]
    limit = max(batch, args.prompts)
    found = prompts(task, language, args.data, format=form, shots=shots, limit=limit)
    asked = [
        GenerateRequest(loaded.tokenizer.encode(one.context), args.new, tuple(one.stop))
        for one in found
    ]
    slots = max(len(one.prompt) for one in asked) + args.new + max(args.drafts)
    sampling = Sampling(temperature=args.temperature)
    engines = {
        f"{count} drafts": Engine(
            *(loaded.config, loaded.tokenizer),
            max_length=4096,
            # So that `batch` rows are decoded at once, and not twice as many.
            tokens_per_batch=int(1.25 * slots) * batch,
            drafts=count,
        )
        for count in (0, *args.drafts)
    }
    sides = {
        side: lambda engine=engine: engine.generate(loaded.params, asked, sampling=sampling)
        for side, engine in engines.items()
    }
    times = common.take_turns(sides, args.rounds, warm_up=1)
    base = times["0 drafts"]
    return {
        "prompts": name,
        "asked": len(asked),
        "rows": {side: sorted(_rows(engine)) for side, engine in engines.items()},
        "new_tokens": sum(len(answer.ids) for answer in base.answer),
        "seconds": {side: round(found.median, 2) for side, found in times.items()},
        "ratio": {side: round(base.median / found.median, 3) for side, found in times.items()},
        "equal_texts": {side: found.answer == base.answer for side, found in times.items()},
        "filled_share": {
            side: round(engine.counts.filled_share, 3) for side, engine in engines.items()
        },
        "accepted_share": {
            side: round(engine.counts.accepted_share, 3) for side, engine in engines.items()
        },
        "tokens_per_row_step": {
            side: round(engine.counts.emitted / engine.counts.filled, 3)
            for side, engine in engines.items()
        },
    }


def _rows(engine: Any) -> set[int]:
    return {name[1] for name in engine.programs if name[0] == "decode"}


def main() -> None:
    """Measures and prints JSON."""
    args = common.read_flags(
        __doc__,
        model=("", "directory of a Hugging Face model, to compare drafts"),
        data=("", "and the directory of benchmarks with the prompts"),
        drafts=((4,), "drafted tokens per row and step"),
        prompts=(8, "prompts of each set"),
        new=(128, "new tokens of each at most"),
        temperature=(0.0, "of sampling; 0 is greedy"),
        batches=((1, 8, 32), "sequences generated at once"),
        vocabulary=(common.VOCABULARY, "entries of the small model's"),
        rounds=(3, "turns of each side"),
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    if args.model:
        sets = itertools.product(PROMPTS, args.batches)
        for name, batch in sets:
            common.print_json(compare_drafts(name, batch, args))
        return
    with tempfile.TemporaryDirectory() as directory:
        common.save_small_model(directory, args.vocabulary)
        for size in args.batches:
            common.print_json(compare(size, args.vocabulary, directory, args.rounds))


if __name__ == "__main__":
    main()
