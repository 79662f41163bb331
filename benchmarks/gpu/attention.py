"""Attention on an NVIDIA GPU: cuDNN's values and gradients beside plain float32 ones.

    python -m benchmarks.gpu.attention

Rows of packed documents with padding behind them, heads and sizes of Qwen2, in bfloat16. Errors are
the largest over the largest value; those of plain attention in bfloat16 stand beside cuDNN's, which
may be twice as large. Ends with 1 where one is larger.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import packed_batch, print_json, read_flags
from marco_jax.model.attention import attention

# (heads, kv_heads, head_dim) of the 0.5B, 1.5B and 7B.
HEADS = ((14, 2, 64), (12, 2, 128), (28, 4, 128))
MOST = 2.0


def errors(sizes: tuple[int, int, int], length: int, implementation: str) -> dict[str, Any]:
    """Relative errors of `implementation` and of plain attention, both in bfloat16."""
    heads, kv_heads, head_dim = sizes
    batch = packed_batch(2, length, vocabulary=100, documents=3)
    positions, segments = (jnp.asarray(x) for x in (batch.positions, batch.segment_ids))
    # The end of each row is padding.
    segments = segments.at[:, -length // 8 :].set(0)
    rng = np.random.default_rng(0)
    shapes = [(2, length, count, head_dim) for count in (heads, kv_heads, kv_heads, heads)]
    operands = [jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in shapes]

    def run(implementation: str, dtype: Any) -> list[np.ndarray]:
        *inputs, cotangent = (x.astype(dtype) for x in operands)
        # Queries of padding attend to nothing that counts.
        cotangent = cotangent * (segments > 0)[:, :, None, None].astype(dtype)

        def call(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            out = attention(
                *(query, key, value),
                query_positions=positions,
                key_positions=positions,
                query_segment_ids=segments,
                key_segment_ids=segments,
                implementation=implementation,
            )
            return out * (segments > 0)[:, :, None, None].astype(dtype)

        out, pull = jax.vjp(call, *inputs)
        return [np.asarray(x, np.float32) for x in (out, *pull(cotangent))]

    exact = run("xla", jnp.float32)
    found = {}
    for name in (implementation, "xla"):
        arrays = run(name, jnp.bfloat16)
        found[name] = max(
            float(np.abs(one - wanted).max() / np.abs(wanted).max())
            for one, wanted in zip(arrays, exact, strict=True)
        )
    return {"heads": sizes, "length": length, "errors": found}


def main() -> int:
    """Prints the errors as JSON."""
    args = read_flags(
        __doc__,
        lengths=((512, 4096), "of a row"),
        implementation=("cudnn", "what is compared with plain attention"),
    )
    rows = [
        errors(sizes, length, args.implementation) for sizes in HEADS for length in args.lengths
    ]
    worst = max(row["errors"][args.implementation] / row["errors"]["xla"] for row in rows)
    good = worst <= MOST
    print_json({"rows": rows, "worst_ratio": round(worst, 3), "good": good})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
