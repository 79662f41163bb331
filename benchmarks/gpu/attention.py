"""Attention on an NVIDIA GPU: cuDNN's values and gradients beside plain float32 ones, and its time.

    python -m benchmarks.gpu.attention

Rows of packed documents, of one document, with padding behind them, and of more documents than one
call of cuDNN takes; heads and sizes of Qwen2, so with grouped KV heads; in bfloat16. An error is
the largest difference over the largest value, of the output and of the gradients of query, key and
value. It may be 0.02, five roundings of bfloat16; those of plain attention in bfloat16 stand beside
it. Ends with 1 where one is larger. Times are of a forward and a backward pass in milliseconds.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import print_json, read_flags, take_turns
from marco_jax.model.attention import attention
from marco_jax.model.cudnn import SEGMENTS_PER_ROW, cudnn_variant

# (heads, kv_heads, head_dim) of the 0.5B, 1.5B and 7B, and without groups.
HEADS = ((14, 2, 64), (12, 2, 128), (28, 4, 128), (8, 8, 128))
MOST = 0.02
ARRAYS = ("output", "query", "key", "value")
ROWS = 2


def segment_rows(kind: str, length: int) -> np.ndarray:
    """Segment ids [ROWS, length] of rows of a kind, a name of KINDS."""
    return np.stack([KINDS[kind](np.arange(length), row) for row in range(ROWS)]).astype(np.int32)


def _uneven(index: np.ndarray, row: int) -> np.ndarray:
    """Documents of 1, 1/3 and the rest of 7/8 of a row, then padding; the rows differ."""
    length = index.size
    ends = [1 + row, length // 3, length - length // 8 - row]
    segments = 1 + sum((index >= end).astype(int) for end in ends[:-1])
    return np.where(index < ends[-1], segments, 0)


KINDS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "packed, with padding": _uneven,
    "one document": lambda index, row: np.ones_like(index),
    "one document, with padding": lambda index, row: (index < index.size * 3 // 4 - row).astype(
        int
    ),
    # Of 16 tokens each: one row has many, the other a few.
    "more than one call": lambda index, row: (
        index // (16 if row == 0 else index.size // SEGMENTS_PER_ROW) + 1
    ),
}


@functools.cache
def gradients(implementation: str, dtype: Any) -> Callable[..., tuple[jax.Array, ...]]:
    """A compiled function of segments, positions, query, key, value and cotangent.

    It returns the output and the gradients. The output is 0 at padding, whose queries attend to
    nothing that counts.
    """

    @jax.jit
    def run(segments: jax.Array, positions: jax.Array, *operands: jax.Array) -> Any:
        def call(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            out = attention(
                *(query, key, value),
                query_positions=positions,
                key_positions=positions,
                query_segment_ids=segments,
                key_segment_ids=segments,
                implementation=implementation,
            )
            return jnp.where((segments > 0)[..., None, None], out, 0)

        *inputs, cotangent = (x.astype(dtype) for x in operands)
        out, pull = jax.vjp(call, *inputs)
        return (out, *pull(cotangent))

    return run


def compare(
    sizes: tuple[int, int, int], length: int, kind: str, implementations: list[str], rounds: int
) -> dict[str, Any]:
    """Errors and times of implementations and of plain attention, all in bfloat16."""
    heads, kv_heads, head_dim = sizes
    segments, rng = segment_rows(kind, length), np.random.default_rng(0)
    shapes = [(ROWS, length, count, head_dim) for count in (heads, kv_heads, kv_heads, heads)]
    operands = [jnp.asarray(segments), jnp.asarray(positions_of(segments))]
    operands += [jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in shapes]
    exact = [np.asarray(x) for x in gradients("xla", jnp.float32)(*operands)]
    errors, times = {}, {}
    for name in ("xla", *implementations):
        run = gradients(name, jnp.bfloat16)
        errors[name] = {
            array: float(
                np.abs(np.asarray(found, np.float32) - wanted).max() / np.abs(wanted).max()
            )
            for array, found, wanted in zip(ARRAYS, run(*operands), exact, strict=True)
        }
        timed = take_turns({name: lambda run=run: jax.block_until_ready(run(*operands))}, rounds)
        times[name] = round(1e3 * timed[name].median, 3)
    row = {"heads": sizes, "length": length, "rows": kind}
    return row | {"errors": errors, "milliseconds": times}


def positions_of(segments: np.ndarray) -> np.ndarray:
    """Positions, which restart with every segment of a row."""
    index = np.arange(segments.shape[1], dtype=np.int32)
    starts = np.where(np.diff(segments, axis=1, prepend=-1) != 0, index, 0)
    return index - np.maximum.accumulate(starts, axis=1)


def supported(length: int) -> list[str]:
    """The variants of cuDNN that this GPU has."""
    capability = getattr(jax.devices()[0], "compute_capability", "")
    return list({cudnn_variant(capability, length, ranks): None for ranks in (1, 2)})


def main() -> int:
    """Prints errors and times as JSON."""
    args = read_flags(
        __doc__,
        lengths=((512, 4096), "of a row"),
        implementation=("", "what is compared; by default what this GPU has of cuDNN"),
        rounds=(5, "timed calls"),
    )
    rows = [
        compare(
            *(sizes, length, kind),
            [args.implementation] if args.implementation else supported(length),
            args.rounds,
        )
        for sizes in HEADS
        for length in args.lengths
        for kind in KINDS
    ]
    found = [error for row in rows for side in row["errors"].values() for error in side.values()]
    # Not a number is not good either.
    good = all(error <= MOST for error in found)
    print_json({"rows": rows, "worst_error": max(found), "most": MOST, "good": good})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
