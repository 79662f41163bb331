"""Greedy generation on a CPU, beside `transformers.generate`.

    python -m benchmarks.decoding --batches=1,8,32 --rounds=3 [--vocabulary=32000]

The same float32 weights of the small model, prompts of 128 tokens and 128 new ones, which no
EOS ends. Ours is `Engine.generate`, from ids to ids; sides take turns, and what is printed is
a ratio of medians. The first call, which compiles, is timed apart. `program_bytes` is what XLA
allocates for the decode loop: arguments, results that are not arguments again, temporaries.

`ratio_of_products_alone` is the bound that this machine sets: what the ratio would be if a token
cost the products with the weights and nothing else, and the prompt nothing at all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.multiple_choice import VOCABULARY, save_model

PROMPT, NEW = 128, 128
OURS, THEIRS = "marco_jax", "transformers"

Generate = Callable[[np.ndarray], np.ndarray]


class Ids:
    """Enough of a tokenizer: every id is a word, and none ends the text."""

    eos_id = -2

    def __init__(self, vocab_size: int) -> None:
        """Of a model with so many ids."""
        self.vocab_size = vocab_size

    def decode(self, ids: list[int]) -> str:
        """Nothing: texts are not compared."""
        return ""


def our_side(directory: str) -> tuple[Generate, Callable[[int], dict]]:
    """Our engine, as `marco generate` makes it, and the memory of its decode loop."""
    from marco_jax.decoding.abstract import abstract_kernels
    from marco_jax.decoding.engine import Engine
    from marco_jax.decoding.requests import GenerateRequest
    from marco_jax.weights.huggingface import load_huggingface

    config, params = load_huggingface(directory)
    engine = Engine(config, Ids(config.vocab_size), max_length=4096)

    def generate(prompts: np.ndarray) -> np.ndarray:
        asked = [GenerateRequest(prompt, NEW) for prompt in prompts.tolist()]
        return np.array([answer.ids for answer in engine.generate(params, asked)])

    def memory(batch: int) -> dict:
        kernels = abstract_kernels(config, None, batch, PROMPT + NEW)
        kernel, arguments = next(
            (kernel, arguments) for name, kernel, arguments in kernels if name == "decode"
        )
        analysis = kernel.lower(*arguments).compile().memory_analysis()
        parameters = 4 * config.num_parameters
        heads = config.num_key_value_heads * config.head_dim
        cache = 4 * 2 * config.num_hidden_layers * batch * (PROMPT + NEW) * heads
        peak = (
            analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
            - analysis.alias_size_in_bytes
            + analysis.temp_size_in_bytes
        )
        return {
            "program_bytes": peak,
            "parameters_and_cache_bytes": parameters + cache,
            "ratio": round(peak / (parameters + cache), 3),
        }

    return generate, memory


def products_alone(directory: str) -> Callable[[int], float]:
    """Seconds that NEW tokens of `batch` rows spend in products with each weight, read in place."""
    import jax
    import jax.numpy as jnp

    from marco_jax.weights.huggingface import load_huggingface

    config, params = load_huggingface(directory)

    def matrices(layer: int) -> list[jax.Array]:
        attention, mlp = (params["layers"][name] for name in ("self_attn", "mlp"))
        wide = [*(attention[f"{name}_proj"] for name in "qkv"), mlp["gate_proj"], mlp["up_proj"]]
        kernels = [one["kernel"][layer].reshape(config.hidden_size, -1) for one in wide]
        narrow = [attention["o_proj"], mlp["down_proj"]]
        return kernels + [one["kernel"][layer].reshape(-1, config.hidden_size) for one in narrow]

    weights = [one for layer in range(config.num_hidden_layers) for one in matrices(layer)]
    head = params["lm_head"]["embedding"]

    @jax.jit
    def run(x: jax.Array, weights: list[jax.Array], head: jax.Array) -> jax.Array:
        def step(_: jax.Array, x: jax.Array) -> jax.Array:
            for weight in weights:
                fed = jnp.resize(x, (x.shape[0], weight.shape[0]))
                out = fed @ weight
                # What follows waits for the product, as it does in a model.
                x = x + 1e-6 * jnp.resize(out, x.shape)
            logits = jnp.einsum("re,we->rw", x, head)
            return x + 1e-6 * logits[:, : x.shape[1]]

        return jax.lax.fori_loop(0, NEW, step, x)

    def seconds(batch: int) -> float:
        x = jnp.ones((batch, config.hidden_size))
        run(x, weights, head).block_until_ready()
        begin = time.perf_counter()
        run(x, weights, head).block_until_ready()
        return time.perf_counter() - begin

    return seconds


def their_side(directory: str) -> Generate:
    """Qwen2ForCausalLM.generate."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    options |= {"eos_token_id": None, "pad_token_id": 0}

    def generate(prompts: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(prompts.astype(np.int64))
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return out[:, PROMPT:].numpy()

    return generate


def compare(batch: int, directory: str, rounds: int, vocabulary: int) -> dict:
    """Interleaved medians of one batch size."""
    (ours, memory), theirs = our_side(directory), their_side(directory)
    bound = products_alone(directory)
    prompts = np.random.default_rng(0).integers(0, vocabulary, (batch, PROMPT)).astype(np.int32)
    begin = time.perf_counter()
    ours(prompts)
    first = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {OURS: [], THEIRS: []}
    cpu: dict[str, list[float]] = {OURS: [], THEIRS: []}
    answers, products = {}, []
    for _ in range(rounds):
        products.append(bound(batch))
        for name, side in ((OURS, ours), (THEIRS, theirs)):
            begin, used = time.perf_counter(), time.process_time()
            answers[name] = side(prompts)
            seconds[name].append(time.perf_counter() - begin)
            cpu[name].append(time.process_time() - used)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cpu_medians = {name: statistics.median(values) for name, values in cpu.items()}
    return {
        "batch": batch,
        "ratio": round(medians[THEIRS] / medians[OURS], 2),
        "ratio_of_cpu_seconds": round(cpu_medians[THEIRS] / cpu_medians[OURS], 2),
        "ratio_of_products_alone": round(medians[THEIRS] / statistics.median(products), 2),
        "tokens_per_second": {name: round(batch * NEW / m, 1) for name, m in medians.items()},
        "seconds": {name: [round(s, 2) for s in values] for name, values in seconds.items()},
        "first_call_with_compilation_seconds": round(first, 1),
        "equal_tokens": bool((answers[OURS] == answers[THEIRS]).all()),
        "memory": memory(batch),
    }


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,8,32", help="rows generated at once")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as directory:
        save_model(directory, args.vocabulary)
        batches = [int(size) for size in args.batches.split(",")]
        results = [compare(size, directory, args.rounds, args.vocabulary) for size in batches]
    shape = {"prompt": PROMPT, "new_tokens": NEW, "vocabulary": args.vocabulary}
    print(json.dumps({**shape, "results": results}, indent=2))


if __name__ == "__main__":
    main()
