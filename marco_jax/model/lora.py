"""Low-rank adapters: y = x W + alpha / rank (x A) B, with W frozen (Hu et al. 2021, 2106.09685).

A is initialised as in `peft` (uniform within 1 / sqrt(inputs)) and B is zero, so that an adapted
model starts equal to the frozen one. Adapter parameters have paths beside their kernel's, are
stacked by layer and use the same sharding rules.
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
    """Which matrices have adapters, and their size: the fields of `config.lora`."""

    rank: int
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    base_dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}: set it to 1 or more")
        unknown = [name for name in self.targets if name not in _KERNELS]
        if unknown or not self.targets:
            raise ValueError(
                f"lora.targets names {(unknown or ['nothing'])[0]!r}: choose from "
                f"{', '.join(_KERNELS)}"
            )

    @property
    def scale(self) -> float:
        """The factor of the product of an adapter's two matrices: alpha / rank."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class AdapterMatrix:
    """One matrix of an adapter; like parameters.Parameter, with an axis `rank`."""

    path: str
    kernel: Parameter
    logical_axes: tuple[str, ...]
    rank: int

    # Weight decay, if the optimizer has any, applies to both matrices.
    decays = True

    def shape(self, config: Qwen2Config) -> tuple[int, ...]:
        """Shape of the stored array, the layer axis included."""
        sizes = axis_sizes(config) | {"rank": self.rank}
        return tuple(sizes[axis] for axis in self.logical_axes)


def adapter_table(config: Qwen2Config, lora: LoraOptions) -> list[AdapterMatrix]:
    """The two matrices of every kernel that has an adapter."""
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
    """Initial adapters in float32; their values depend on the seed alone."""
    key = jax.random.key(seed)

    def create(row: AdapterMatrix) -> jax.Array:
        shape = row.shape(config)
        if row.path.endswith(UP):
            return jnp.zeros(shape)
        bound = 1 / math.sqrt(math.prod(shape[1:-1]))
        row_key = jax.random.fold_in(key, zlib.crc32(row.path.encode()))
        return jax.random.uniform(row_key, shape, jnp.float32, -bound, bound)

    return adapter_tree(config, lora, create)


def with_adapters(base: Params, adapters: Params) -> Params:
    """Joins frozen parameters and adapters into the tree that `qwen2.bind` takes."""
    return unflatten(flatten(base) | flatten(adapters))


def merge(config: Qwen2Config, lora: LoraOptions, base: Params, adapters: Params) -> Params:
    """Adds the adapters into the kernels: a model without adapters, in the dtypes of `base`."""
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
