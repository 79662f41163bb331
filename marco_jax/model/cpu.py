"""What runs differently on a CPU, where XLA's compiler needs other programs.

Every function here computes what its plain counterpart does. Besides these, a CPU has an attention
kernel of its own (blocked.py), and a process setting (runtime/host_memory.py).
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import (
    Parameter,
    Params,
    contiguous,
    flatten,
    parameter_table,
    unflatten,
)
from marco_jax.model.qwen2_config import Qwen2Config

# Float32 logits that a loss holds at once. A chunk of tokens reads and writes the gradient of the
# whole head: with an accelerator's smaller chunks the loss takes twice the time at 152k entries.
LOGITS_MIB = 640.0

# Rows of a product that is faster with the weights as its first operand.
_FEW_ROWS = 64
# Float32 parameters of the layers that decoding copies at most, to have the weights transposed.
_TRANSPOSED_BYTES = 2 << 30


def on_cpu(sharding: Sharding) -> bool:
    """Whether the devices of a mesh are CPUs."""
    return sharding.platform == "cpu"


def matrix_product(x: jax.Array, kernel: jax.Array, inputs: int) -> jax.Array:
    """Multiplies [..., *inputs] by [*inputs, *outputs], as two matrices.

    The gradient of the kernel takes half the time of `tensordot`'s. On a TPU the reshape would
    change layouts and cost memory.
    """
    rows, outputs = x.shape[: x.ndim - inputs], kernel.shape[inputs:]
    size = math.prod(kernel.shape[:inputs])
    y = x.reshape(-1, size) @ kernel.reshape(size, -1)
    return y.reshape(*rows, *outputs)


def few_rows_product(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Multiplies [rows, inputs] by [outputs, inputs]: float32 [rows, outputs].

    A thread of XLA's matrix product takes some of the first operand's rows. With a few rows of
    activations first, threads wait for each other and read all weights; with the weights first the
    product is up to twice as fast. The barrier keeps XLA from exchanging the operands again.
    """
    inputs = (((1,), (1,)), ((), ()))
    kind = jnp.float32
    if not 1 < x.shape[0] <= _FEW_ROWS:
        return jax.lax.dot_general(x, weights, inputs, preferred_element_type=kind)
    y = jax.lax.dot_general(weights, x, inputs, preferred_element_type=kind)
    return jax.lax.optimization_barrier(y).T


def transposed_product(
    x: jax.Array, kernel: jax.Array, inputs: int, outputs: Sequence[int]
) -> jax.Array:
    """Multiplies [..., *inputs] by a matrix [outputs, inputs]: [..., *outputs]."""
    rows = x.shape[: x.ndim - inputs]
    y = few_rows_product(x.reshape(math.prod(rows), -1), kernel)
    return y.astype(x.dtype).reshape(*rows, *outputs)


def target_logits(logits: jax.Array, columns: jax.Array) -> jax.Array:
    """One logit of each row, [rows]; 0 where its column is not one of [rows, vocab].

    A sum over a mask, as on a TPU, would write all logits again.
    """
    here = (columns >= 0) & (columns < logits.shape[1])
    found = jnp.take_along_axis(logits, jnp.where(here, columns, 0)[:, None], axis=1)[:, 0]
    return jnp.where(here, found, 0)


def first_argmax(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The maximum over the last axis and its first index, int32.

    XLA's argmax on a CPU is not vectorised. This takes the maxima of blocks, and the argmax of one
    block only, which is 15 times as fast for 32 rows of 151,936 logits.
    """
    *rows, entries = logits.shape
    size = next((size for size in range(2048, 31, -1) if entries % size == 0), entries)
    blocks = logits.reshape(*rows, -1, size)
    largest = jnp.max(blocks, axis=-1)  # [..., blocks]
    block = jnp.argmax(largest, axis=-1)
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    index = block * size + jnp.argmax(inside, axis=-1)
    return jnp.max(largest, axis=-1), index.astype(jnp.int32)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["layers"], meta_fields=["transposed"]
)
@dataclasses.dataclass(frozen=True)
class LayerViews:
    """The parameters of each layer, for the unrolled layers of decoding.

    `transposed` says that kernels are matrices [outputs, inputs], for `transposed_product`.
    """

    layers: list[Params]
    transposed: bool


def layer_views(
    params: Params, config: Qwen2Config, sharding: Sharding, rows: int
) -> LayerViews | None:
    """Makes one tree of parameters per layer for decoding `rows` rows at once.

    On a CPU XLA copies each layer's slice of the stack at every step, which triples the memory
    traffic. The trees' arrays share memory with the stacked ones, but for the kernels of several
    rows, which are copied with their outputs first if they take less than 2 GiB. On other devices
    slices fuse with their consumers, and the result is None.

    The views must not outlive `params`.
    """
    stacked = flatten(params["layers"], "layers/")
    # Arrays share memory through NumPy and DLPack, which do not support bfloat16 together.
    float32 = all(x.dtype == jnp.float32 for x in stacked.values())
    if not takes_views(sharding) or not float32:
        return None
    jax.block_until_ready(params["layers"])
    copied = rows > 1 and sum(x.nbytes for x in stacked.values()) <= _TRANSPOSED_BYTES

    def view(row: Parameter, layer: int) -> jax.Array:
        one = stacked[row.path].addressable_shards[0].data
        size = one.nbytes // one.shape[0]
        address = one.unsafe_buffer_pointer() + layer * size
        memory = (ctypes.c_char * size).from_address(address)
        array = np.frombuffer(memory, one.dtype).reshape(one.shape[1:])
        if copied and row.inputs:
            array = contiguous(row.to_huggingface(array, config), array.dtype)
        return jax.dlpack.from_dlpack(array)

    table = [row for row in parameter_table(config) if row.stacked]
    layers = [
        unflatten({row.path.removeprefix("layers/"): view(row, layer) for row in table})
        for layer in range(config.num_hidden_layers)
    ]
    return LayerViews(layers, copied)


def takes_views(sharding: Sharding) -> bool:
    """Whether decoding uses `layer_views`: on a single CPU device."""
    return on_cpu(sharding) and sharding.mesh.size == 1
