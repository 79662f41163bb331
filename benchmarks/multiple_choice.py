"""Few-shot multiple choice on a CPU, beside lm-evaluation-harness with its Hugging Face backend.

    python -m benchmarks.multiple_choice --examples=64 --harness_examples=8 --rounds=3

A is our engine, B the harness at the best of some batch sizes. Both score the same token ids with
the same float32 weights of the small model: a prefix of five shots that all questions share, a
question, four options. Options are letters (one token each) or texts of a few tokens. The sides
take turns, all their questions each, and `ratio` is B's median seconds for a question over A's; A's
first call, which compiles, is timed by itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.common import OURS

SHOTS, SHOT_TOKENS, QUESTION_TOKENS = 5, 128, (96, 160)
LETTERS, TEXTS = "letters", "texts"
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
        pairs += [(context, option) for option in (letters if kind == LETTERS else texts)]
    return pairs


def our_side(directory: str) -> Callable[[Pairs], np.ndarray]:
    """Our engine, as `marco eval` makes it."""
    from marco_jax.decoding.requests import ScoreRequest

    engine, params = common.load_engine(directory)

    def score(pairs: Pairs) -> np.ndarray:
        asked = [ScoreRequest(*pair) for pair in pairs]
        return np.array([answer.logprob for answer in engine.score(params, asked)])

    return score


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
    harness = HFLM(common.load_torch(directory), tokenizer=tokenizer, max_length=4096, batch_size=1)

    def score(pairs: Pairs, batch: int) -> np.ndarray:
        harness.batch_size_per_gpu = batch
        asked = [(("", str(n)), *pair) for n, pair in enumerate(pairs)]
        answers = harness._loglikelihood_tokens(asked, disable_tqdm=True)
        return np.array([answer[0] for answer in answers])

    return score


def compare(kind: str, directory: str, args: argparse.Namespace) -> dict[str, Any]:
    """One kind of options."""
    ours, theirs = our_side(directory), harness_side(directory)
    pairs, few = requests(kind, args.examples), requests(kind, args.harness_examples)
    first = common.Times()
    first.call(lambda: ours(pairs))
    sides = {OURS: lambda: ours(pairs)}
    for size in args.batches:
        sides[f"harness, {size}"] = lambda size=size: theirs(few, size)
    times = common.take_turns(sides, args.rounds)
    asked = dict.fromkeys(sides, args.harness_examples) | {OURS: args.examples}
    rates = {name: asked[name] / found.median for name, found in times.items()}
    both = min(len(pairs), len(few))  # fewer questions are the first of more
    gaps = [np.abs(times[OURS].answer[:both] - t.answer[:both]).max() for t in times.values()]
    return {
        "options": kind,
        "ratio": round(rates[OURS] / max(rates[name] for name in rates if name != OURS), 3),
        "questions_per_second": {name: round(rate, 3) for name, rate in rates.items()},
        "first_call_with_compilation_seconds": round(first.median, 1),
        "largest_difference": float(max(gaps)),
    }


def main() -> None:
    """Measures and prints JSON."""
    args = common.read_flags(
        __doc__,
        examples=(64, "questions for our side"),
        harness_examples=(8, "and for the harness"),
        rounds=(3, "turns of each side"),
        batches=((1, 8), "batch sizes of the harness"),
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as directory:
        common.save_small_model(directory)
        common.print_json([compare(kind, directory, args) for kind in (LETTERS, TEXTS)])


if __name__ == "__main__":
    main()
