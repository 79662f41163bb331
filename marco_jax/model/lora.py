"""Low-rank adapters: y = x W + alpha / rank (x A) B, with W frozen (Hu et al. 2021, 2106.09685).

A starts as `peft` starts it (uniform within 1 / sqrt(inputs)) and B at zero, so that an adapted
model begins as the one it adapts. Adapters stand beside the kernels that they adapt, stacked by
layer and placed by the same rules.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from marco_jax.model.parameters import (
    Parameter,
    Params,
    axis_sizes,
    flatten,
    parameter_table,
    unflatten,
)
from marco_jax.model.qwen2_config import Qwen2Config

# Last parts of the paths of an adapter's two matrices.
DOWN, UP = "lora_a", "lora_b"


@dataclasses.dataclass(frozen=True)
class LoraOptions:
    """Which matrices are adapted, and how: fields as in `config.lora`."""

    rank: int
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    base_dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}: an adapter needs at least 1")
        unknown = [name for name in self.targets if name not in _KERNELS]
        if unknown or not self.targets:
            raise ValueError(
                f"lora.targets names {(unknown or ['nothing'])[0]!r}: choose from "
                f"{', '.join(_KERNELS)}"
            )

    @property
    def scale(self) -> float:
        """What the product of an adapter's matrices is multiplied with."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class AdapterMatrix:
    """A row of the table of adapters: like parameters.Parameter, with an axis `rank`."""

    path: str
    kernel: Parameter
    logical_axes: tuple[str, ...]
    rank: int

    # All of an adapter decays where the optimizer says so.
    decays = True

    def shape(self, config: Qwen2Config) -> tuple[int, ...]:
        """Shape of the stored array, the layer axis included."""
        sizes = axis_sizes(config) | {"rank": self.rank}
        return tuple(sizes[axis] for axis in self.logical_axes)


def adapter_table(config: Qwen2Config, lora: LoraOptions) -> list[AdapterMatrix]:
    """Both matrices of every adapted kernel."""
    rows = []
    for kernel in parameter_table(config):
        *_, name, leaf = kernel.path.split("/")
        if leaf != "kernel" or name not in lora.targets:
            continue
        before, after = kernel.axes[: kernel.inputs], kernel.axes[kernel.inputs :]
        stem = kernel.path.removesuffix(leaf)
        for leaf, axes in ((DOWN, (*before, "rank")), (UP, ("rank", *after))):
            rows.append(AdapterMatrix(stem + leaf, kernel, ("layers", *axes), lora.rank))
    return rows


def adapter_tree(
    config: Qwen2Config, lora: LoraOptions, function: Callable[[AdapterMatrix], Any]
) -> Params:
    """A tree shaped like the adapters whose leaves are `function(row)`."""
    return unflatten({row.path: function(row) for row in adapter_table(config, lora)})


def init_adapters(config: Qwen2Config, lora: LoraOptions, seed: int) -> Params:
    """First adapters, float32; their values depend on the seed alone."""
    key = jax.random.key(seed)

    def create(row: AdapterMatrix) -> jax.Array:
        shape = row.shape(config)
        if row.path.endswith(UP):
            return jnp.zeros(shape)
        bound = 1 / math.sqrt(math.prod(shape[1:-1]))
        own = jax.random.fold_in(key, zlib.crc32(row.path.encode()))
        return jax.random.uniform(own, shape, jnp.float32, -bound, bound)

    return adapter_tree(config, lora, create)


def with_adapters(base: Params, adapters: Params) -> Params:
    """One tree of both, as a model with adapters is bound to it."""
    return unflatten(flatten(base) | flatten(adapters))


def merge(config: Qwen2Config, lora: LoraOptions, base: Params, adapters: Params) -> Params:
    """The parameters of the same model without adapters, in the dtypes of `base`."""
    merged, pairs = flatten(base), flatten(adapters)
    for row in adapter_table(config, lora):
        if not row.path.endswith(DOWN):
            continue
        kernel, down = merged[row.kernel.path], pairs[row.path].astype(jnp.float32)
        up = pairs[row.path.removesuffix(DOWN) + UP].astype(jnp.float32)
        layers = kernel.shape[0]
        product = jnp.einsum(
            "lir,lro->lio",
            down.reshape(layers, -1, lora.rank),
            up.reshape(layers, lora.rank, -1),
            precision=jax.lax.Precision.HIGHEST,
        )
        added = kernel.astype(jnp.float32) + lora.scale * product.reshape(kernel.shape)
        merged[row.kernel.path] = added.astype(kernel.dtype)
    return unflatten(merged)


_KERNELS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
