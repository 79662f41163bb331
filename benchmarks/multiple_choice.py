"""Few-shot multiple choice on a CPU, beside lm-evaluation-harness with its Hugging Face backend.

    python -m benchmarks.multiple_choice --examples=16 --rounds=3

Both sides score the same token ids with the same float32 weights of the small model: a beginning
of five solved examples that all questions share, a question, four options. Options are letters
(one token each) or texts of a few tokens. The harness runs at the best of some batch sizes. Sides
take turns, and what is printed is a ratio of medians; our compilation is timed apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

SHOTS, SHOT_TOKENS, QUESTION_TOKENS = 5, 128, (96, 160)
OPTIONS, TEXT_TOKENS = 4, (3, 8)
VOCABULARY = 151_936
OURS = "marco_jax"

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


def our_side(directory: str) -> tuple[Callable[[Pairs], list[float]], object]:
    """Our engine, as `marco eval` makes it."""
    from marco_jax.decoding.engine import Engine
    from marco_jax.decoding.requests import ScoreRequest
    from marco_jax.weights.huggingface import load_huggingface

    class Ids:
        vocab_size, eos_id = VOCABULARY, 0

        def decode(self, ids: list[int]) -> str:
            return " ".join(map(str, ids))

    config, params = load_huggingface(directory)
    engine = Engine(config, Ids(), max_length=4096)

    def score(pairs: Pairs) -> list[float]:
        asked = [ScoreRequest(*pair) for pair in pairs]
        return [answer.logprob for answer in engine.score(params, asked)]

    return score, engine


def harness_side(directory: str) -> Callable[[Pairs, int], list[float]]:
    """The harness's own model class on the same weights."""
    import tokenizers
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)

    # Requests are token ids: the harness asks its tokenizer for special tokens only.
    words = tokenizers.models.WordLevel({"<|endoftext|>": 0}, unk_token="<|endoftext|>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), eos_token="<|endoftext|>"
    )
    harness = HFLM(model.eval(), tokenizer=tokenizer, max_length=4096, batch_size=1)

    def score(pairs: Pairs, batch: int) -> list[float]:
        harness.batch_size_per_gpu = batch
        asked = [(("", str(n)), *pair) for n, pair in enumerate(pairs)]
        return [answer[0] for answer in harness._loglikelihood_tokens(asked, disable_tqdm=True)]

    return score


def save_model(directory: str, vocabulary: int = VOCABULARY) -> None:
    """The small model with random weights, as both sides read it."""
    from marco_jax.model.qwen2 import init_params
    from marco_jax.model.qwen2_config import PRESETS
    from marco_jax.weights.huggingface import save_huggingface

    config = dataclasses.replace(PRESETS["small"], vocab_size=vocabulary)
    save_huggingface(directory, config, init_params(config, seed=0), overwrite=True)


def timed(function: Callable, *arguments: object) -> tuple[float, list[float]]:
    """Seconds, and what the function returned."""
    begin = time.perf_counter()
    values = function(*arguments)
    return time.perf_counter() - begin, values


def compare(kind: str, directory: str, args: argparse.Namespace) -> dict:
    """Interleaved medians of one kind of options."""
    ours, engine = our_side(directory)
    theirs = harness_side(directory)
    pairs, few = requests(kind, args.examples), requests(kind, args.harness_examples)
    first, _ = timed(ours, pairs)
    batches = [int(size) for size in args.batches.split(",")]
    seconds: dict = {name: [] for name in (OURS, *batches)}
    cpu: dict = {name: [] for name in (OURS, *batches)}
    difference = 0.0
    for _ in range(args.rounds):
        for name in seconds:
            used = time.process_time()
            asked = pairs if name == OURS else few
            taken, values = timed(ours, pairs) if name == OURS else timed(theirs, few, name)
            share = len(asked) / OPTIONS
            seconds[name].append(taken / share)
            cpu[name].append((time.process_time() - used) / share)
            if name == OURS:
                scores = np.array(values)
            else:
                # Fewer questions are the first of more.
                both = min(len(scores), len(values))
                gap = np.abs(scores[:both] - np.array(values)[:both]).max()
                difference = max(difference, float(gap))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(batches, key=medians.__getitem__)
    cpu_medians = {name: statistics.median(values) for name, values in cpu.items()}
    return {
        "options": kind,
        "ratio": round(medians[best] / medians[OURS], 2),
        "ratio_of_cpu_seconds": round(cpu_medians[best] / cpu_medians[OURS], 2),
        "harness_batch_size": best,
        "examples_per_second": {str(k): round(1 / v, 3) for k, v in medians.items()},
        "first_call_with_compilation_seconds": round(first, 1),
        "programs": len(engine.programs),
        "largest_difference": difference,
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
        save_model(directory)
        kinds = args.kinds.split(",")
        print(json.dumps([compare(kind, directory, args) for kind in kinds], indent=2))


if __name__ == "__main__":
    main()
