"""A rough estimate of the device memory of a training step."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from marco_jax.lanes.lane_choice import choose_lanes
from marco_jax.model.mesh import Sharding
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.objectives.losses import default_logits_mib
from marco_jax.training.assemble import global_rows

# Of a device's memory, that the rough estimate of a sweep's lanes may take.
_LANES_SHARE = 0.8
KEPT_ACTIVATIONS = "activations kept for the backward pass"


def estimate_memory(
    model: Qwen2Config,
    config: ConfigDict,
    mesh: Mapping[str, int],
    rows: int,
    remat: str,
    logits_mib: float,
) -> dict[str, float]:
    """Estimates a device's peak memory in a step, in bytes by purpose.

    `mesh` has the sizes of the axes fsdp, tensor and context, `rows` is sequences_per_chip, `remat`
    a policy of model/remat.py, and the loss holds `logits_mib` MiB of logits at once. Of the config
    count the length, the dtype, accumulation and mesh.keep_gathered.
    """
    tensor, ways = mesh["tensor"], mesh["fsdp"] * mesh["context"]
    tokens = rows * tensor * config.batch.length / config.batch.accumulation_steps
    hidden, mlp = model.hidden_size, model.intermediate_size
    heads = model.num_attention_heads * model.head_dim
    kv_heads = 2 * model.num_key_value_heads * model.head_dim
    parameters, layers = model.num_parameters / tensor, model.num_hidden_layers
    kept = {"full": hidden, "offload": hidden, "attention": hidden + heads / tensor}
    everything = 2 * hidden + (2 * heads + kv_heads + 2 * mlp) / tensor
    size = jnp.dtype(config.dtype).itemsize
    gathered = layers if config.mesh.keep_gathered else 4
    table = model.vocab_size * hidden * (1 if model.tie_word_embeddings else 2)
    in_layers = parameters - table / tensor
    return {
        # Parameters and moments are float32, gradients have the dtype.
        "parameters, moments and gradients": (12 + size) * parameters / ways,
        KEPT_ACTIVATIONS: layers * tokens * size * kept.get(remat, everything),
        "activations of a layer": tokens * size * (4 * mlp / tensor + 10 * hidden),
        "gathered weights": gathered * (in_layers / layers) * size,
        "logits": 4 * min(logits_mib * 2**20, 4 * tokens * model.vocab_size),
    }


def device_memory(model: Qwen2Config, config: ConfigDict, sharding: Sharding) -> dict[str, float]:
    """`estimate_memory` of a run of `config` on a mesh."""
    sizes = {"tensor": sharding.ways("heads"), "context": sharding.ways("length")}
    sizes["fsdp"] = sharding.ways("embed") // sizes["context"]
    rows = max(1, global_rows(config, sharding) // sharding.mesh.size)
    logits = config.loss.logits_mib or default_logits_mib(sharding.platform)
    return estimate_memory(model, config, sizes, rows, config.remat, logits)


def lanes_bytes(config: ConfigDict, model: Qwen2Config, sharding: Sharding, lanes: int) -> float:
    """Estimates a device's peak memory in a step of `lanes` runs, which all devices share."""
    return lanes * sum(device_memory(model, config, sharding).values())


def sweep_lanes(
    config: ConfigDict, model: Qwen2Config, sharding: Sharding, runs: int, limit: float | None
) -> int:
    """How many runs of a sweep train at once: `choose_lanes` with the memory that there is.

    Args:
        config: of the sweep.
        model: the sizes of its runs.
        sharding: of all devices.
        runs: runs of one shape.
        limit: a device's memory in bytes; None: any number of lanes fits.

    Raises:
        ConfigError: the fields of the sweep do not fit together, the devices or the batch.
    """

    def fits(lanes: int) -> bool:
        return limit is None or lanes_bytes(config, model, sharding, lanes) <= _LANES_SHARE * limit

    return choose_lanes(config, sharding, runs, fits)


def device_bytes() -> int | None:
    """The memory of a local device in bytes; None where it has no limit of its own (CPU)."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
