"""What the decoding kernels hold at their peak, beside the parameters and the cache.

    python -m benchmarks.decoding_memory --preset=qwen2_0_5b --batch=8 --length=512

Compiles each program on a CPU without any weights and prints as JSON what XLA allocates: arguments,
results that do not take the place of arguments, and temporaries. `cache` is the keys and values of
all rows, which scoring holds as well while it reads them; the floor is parameters and cache, and a
program is within bounds at 1.1 times as much.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

BOUND = 1.1


def measure(config: Any, batch: int, length: int) -> list[dict[str, Any]]:
    """A row a program: bytes at the peak, and how they compare with parameters and cache."""
    from marco_jax.decoding.abstract import abstract_kernels

    itemsize = 4
    parameters = itemsize * config.num_parameters
    heads = config.num_key_value_heads * config.head_dim
    cache = itemsize * 2 * config.num_hidden_layers * batch * length * heads
    rows = []
    for name, kernel, arguments in abstract_kernels(config, None, batch, length):
        found = kernel.lower(*arguments).compile().memory_analysis()
        peak = (
            found.argument_size_in_bytes
            + found.output_size_in_bytes
            - found.alias_size_in_bytes
            + found.temp_size_in_bytes
        )
        floor = parameters + cache * (1 / batch if name == "extend" else 1)
        rows.append(
            {
                "program": name,
                "batch": 1 if name == "extend" else batch,
                "length": length,
                "peak_bytes": peak,
                "temporary_bytes": found.temp_size_in_bytes,
                "parameters_bytes": parameters,
                "cache_bytes": int(floor - parameters),
                "ratio": round(peak / floor, 3),
                "within": bool(peak <= BOUND * floor),
            }
        )
    return rows


def main() -> None:
    """Compiles and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small", help="sizes of the model")
    parser.add_argument("--batch", type=int, default=8, help="rows")
    parser.add_argument("--length", type=int, default=512, help="tokens a row")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    from marco_jax.model.qwen2_config import PRESETS

    print(json.dumps(measure(PRESETS[args.preset], args.batch, args.length), indent=1))


if __name__ == "__main__":
    main()
