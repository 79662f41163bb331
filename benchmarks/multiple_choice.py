"""Few-shot multiple choice on a CPU, beside lm-evaluation-harness with its Hugging Face backend.

    python -m benchmarks.multiple_choice --examples=16 --rounds=3

A is our engine, B the harness at the best of some batch sizes. Both score the same token ids with
the same float32 weights of the small model: a prefix of five shots that all questions share, a
question, four options. Options are letters (one token each) or texts of a few tokens. The sides
take turns, all questions each, and `ratio` is B's median for a question over A's; our compilation
is timed by itself.
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

SHOTS, SHOT_TOKENS, QUESTION_TOKENS = 5, 128, (96, 160)
OPTIONS, TEXT_TOKENS = 4, (3, 8)

Pairs = list[tuple[list[int], list[int]]]


def requests(kind: str, examples: int) -> Pairs:
    """(context, continuation) of every option of every question, random ids."""
    random = np.random.default_rng(0)

    def ids(size: int) -> list[int]:
        return random.integers(0, 150_000, size).tolist()

    shots = ids(SHOTS * SHOT_TOKENS)
    letters = [ids(1) for _ in range(OPTIONS)]
    pairs = []
    for _ in range(examples):
        context = shots + ids(random.integers(*QUESTION_TOKENS))
        texts = [ids(random.integers(*TEXT_TOKENS)) for _ in range(OPTIONS)]
        pairs += [(context, option) for option in (letters if kind == "letters" else texts)]
    return pairs


def our_side(directory: str) -> tuple[Callable[[Pairs], np.ndarray], Any]:
    """Our engine, as `marco eval` makes it."""
    from marco_jax.decoding.engine import Engine
    from marco_jax.decoding.requests import ScoreRequest
    from marco_jax.weights.huggingface import load_huggingface

    config, params = load_huggingface(directory)
    engine = Engine(config, Ids(VOCABULARY), max_length=4096)

    def score(pairs: Pairs) -> np.ndarray:
        asked = [ScoreRequest(*pair) for pair in pairs]
        return np.array([answer.logprob for answer in engine.score(params, asked)])

    return score, engine


def harness_side(directory: str) -> Callable[[Pairs, int], np.ndarray]:
    """The harness's own model class on the same weights."""
    import tokenizers
    import transformers
    from lm_eval.models.huggingface import HFLM

    # Requests are token ids: the harness asks its tokenizer for special tokens only.
    words = tokenizers.models.WordLevel({"<|endoftext|>": 0}, unk_token="<|endoftext|>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), eos_token="<|endoftext|>"
    )
    harness = HFLM(load_torch(directory), tokenizer=tokenizer, max_length=4096, batch_size=1)

    def score(pairs: Pairs, batch: int) -> np.ndarray:
        harness.batch_size_per_gpu = batch
        asked = [(("", str(n)), *pair) for n, pair in enumerate(pairs)]
        answers = harness._loglikelihood_tokens(asked, disable_tqdm=True)
        return np.array([answer[0] for answer in answers])

    return score


def compare(kind: str, directory: str, args: argparse.Namespace) -> dict[str, Any]:
    """One kind of options."""
    ours, engine = our_side(directory)
    theirs = harness_side(directory)
    pairs, few = requests(kind, args.examples), requests(kind, args.harness_examples)
    first = Times()
    first.call(lambda: ours(pairs))
    sides: dict[str, Callable[[], np.ndarray]] = {OURS: lambda: ours(pairs)}
    for size in args.batches.split(","):
        sides[size] = lambda size=size: theirs(few, int(size))
    times = take_turns(sides, args.rounds)
    for name, found in times.items():
        asked = args.examples if name == OURS else args.harness_examples
        found.seconds = [taken / asked for taken in found.seconds]
        found.cpu_seconds = [taken / asked for taken in found.cpu_seconds]
    best = min(args.batches.split(","), key=lambda size: times[size].median)
    # Fewer questions are the first of more.
    both = min(len(pairs), len(few))
    gaps = [np.abs(times[OURS].answer[:both] - t.answer[:both]).max() for t in times.values()]
    return {
        "options": kind,
        **ratios(times, OURS, best),
        "harness_batch_size": int(best),
        "examples_per_second": {name: round(1 / t.median, 3) for name, t in times.items()},
        "first_call_with_compilation_seconds": round(first.median, 1),
        "programs": len(engine.programs),
        "largest_difference": float(max(gaps)),
    }


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=64, help="questions for our side")
    parser.add_argument("--harness_examples", type=int, default=8, help="and for the harness")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--batches", default="1,8", help="batch sizes of the harness")
    parser.add_argument("--kinds", default="letters,texts", help="options")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as directory:
        save_small_model(directory)
        kinds = args.kinds.split(",")
        print(json.dumps([compare(kind, directory, args) for kind in kinds], indent=2))


if __name__ == "__main__":
    main()
