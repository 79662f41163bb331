"""What the loss over the vocabulary takes on a TPU chip, as the TPU compiler has it.

    python -m benchmarks.loss_memory --rows=1 --length=8192

The loss of Qwen2-7B (vocabulary 152,064) and its gradients alone, laid out as in the training step:
arguments are hidden states, the head's shard, targets and weights; results are both gradients.
Printed: the temporaries, by the compiler's peak (arguments and results left out) and by its sum of
sizes, which counts some buffers of a loop twice.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp

from benchmarks.tpu_step import CONFIG
from marco_jax.model.parameters import flatten
from marco_jax.planning.topology import topology_devices
from marco_jax.training.assemble import create_sharding, create_trainer, global_rows
from marco_jax.training.config import load_config, model_config
from marco_jax.training.losses import cross_entropy
from marco_jax.training.step import Batch

GIB = 2**30


def measure(topology: str, rows: int, length: int) -> dict:
    """Compiles the loss for a topology; figures in GiB a chip."""
    fields = (f"batch.sequences_per_chip={rows}", f"batch.length={length}")
    config = load_config(str(CONFIG), fields)
    model = model_config(config, config.tokenizer.vocab_size)
    sharding = create_sharding(config, topology_devices(topology))
    trainer = create_trainer(config, model, sharding, num_sources=1)
    head = flatten(trainer.abstract_state().params)["lm_head/embedding"]
    batch = trainer.abstract_batch(global_rows(config, sharding), length)
    spec = trainer.batch_sharding.spec
    hidden = jax.ShapeDtypeStruct(
        (*batch.tokens.shape, model.hidden_size),
        jnp.bfloat16,
        sharding=jax.NamedSharding(sharding.mesh, spec),
    )

    def gradients(hidden: jax.Array, table: jax.Array, batch: Batch) -> tuple:
        layout = trainer.layout(batch)

        def loss(hidden: jax.Array, table: jax.Array) -> jax.Array:
            total, _ = cross_entropy(
                hidden, table, batch.targets, batch.loss_weights, trainer.options.loss, layout
            )
            return total

        return jax.grad(loss, argnums=(0, 1))(hidden, table)

    mapped = jax.shard_map(
        gradients,
        mesh=sharding.mesh,
        in_specs=(spec, head.sharding.spec, spec),
        out_specs=(spec, head.sharding.spec),
        check_vma=False,
    )
    analysis = jax.jit(mapped).lower(hidden, head, batch).compile().memory_analysis()
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    return {
        "topology": topology,
        "tokens": f"{rows} x {length}",
        "vocabulary": model.vocab_size,
        "temporaries_by_peak_gib": round((analysis.peak_memory_in_bytes - held) / GIB, 3),
        "temporaries_by_sum_gib": round(analysis.temp_size_in_bytes / GIB, 3),
        "arguments_and_results_gib": round(held / GIB, 3),
    }


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5p:4x4x4")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=8192)
    args = parser.parse_args()
    print(json.dumps(measure(args.topology, args.rows, args.length), indent=2))


if __name__ == "__main__":
    main()
