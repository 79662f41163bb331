"""What runs differently on a CPU, where XLA's compiler needs other programs.

Every function here computes what its plain counterpart does. Besides these, a CPU has an attention
kernel of its own (blocked.py), and a process setting (runtime/host_memory.py).
"""

from __future__ import annotations

import ctypes
import math

import jax
import jax.numpy as jnp
import numpy as np

from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params

# Float32 logits that a loss holds at once. A chunk of tokens reads and writes the gradient of the
# whole head: with an accelerator's smaller chunks the loss takes twice the time at 152k entries.
LOGITS_MIB = 640.0


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


def layer_views(params: Params, sharding: Sharding) -> list[Params] | None:
    """Makes one tree of parameters per layer, whose arrays share memory with the stacked ones.

    On a CPU XLA copies each layer's slice of the stack at every step, which triples the memory
    traffic. On other devices slices fuse with their consumers, and the result is None.

    The views must not outlive `params`.
    """
    # Arrays share memory through NumPy and DLPack, which do not support bfloat16 together.
    float32 = all(x.dtype == jnp.float32 for x in jax.tree.leaves(params["layers"]))
    if not takes_views(sharding) or not float32:
        return None

    def view(stacked: jax.Array, layer: int) -> jax.Array:
        one = stacked.addressable_shards[0].data
        size = one.nbytes // one.shape[0]
        address = one.unsafe_buffer_pointer() + layer * size
        memory = (ctypes.c_char * size).from_address(address)
        array = np.frombuffer(memory, one.dtype).reshape(one.shape[1:])
        return jax.dlpack.from_dlpack(array)

    jax.block_until_ready(params["layers"])
    depth = jax.tree.leaves(params["layers"])[0].shape[0]
    return [jax.tree.map(lambda x, i=i: view(x, i), params["layers"]) for i in range(depth)]


def takes_views(sharding: Sharding) -> bool:
    """Whether decoding uses `layer_views`: on a single CPU device."""
    return on_cpu(sharding) and sharding.mesh.size == 1
