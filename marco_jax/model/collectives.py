"""Collectives over one mesh axis with gradients of their own, and the order of a backward pass.

They run inside `jax.shard_map`, where an array is one device's shard; `layout.Manual` says where.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def gather(x: jax.Array, names: Sequence[str], dimension: int) -> jax.Array:
    """All-gathers a dimension over mesh axes (given major first), one at a time, minor axis first.

    The gradient is reduce-scattered in the reverse order. Each sends (n - 1) / n of the whole
    array for n ranks in total, however the ranks are divided into axes.
    """
    for name in reversed(names):
        x = _gather(x, name, dimension)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, name: str, dimension: int) -> jax.Array:
    return jax.lax.all_gather(x, name, axis=dimension, tiled=True)


def _scatter(name: str, dimension: int, _: None, x: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.psum_scatter(x, name, scatter_dimension=dimension, tiled=True),)


_gather.defvjp(lambda x, name, dimension: (_gather(x, name, dimension), None), _scatter)


def rows_of(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Rows of a table [vocab, columns]; its gradient is summed in float32, whatever the dtype."""
    return _take(table, rows, table.shape[0], table.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _take(table: jax.Array, rows: jax.Array, vocab: int, dtype: jnp.dtype) -> jax.Array:
    return table[rows]


def _add(vocab: int, dtype: jnp.dtype, rows: jax.Array, grad: jax.Array) -> tuple[jax.Array, None]:
    total = jnp.zeros((vocab, grad.shape[-1]), jnp.float32)
    return total.at[rows].add(grad.astype(jnp.float32)).astype(dtype), None


_take.defvjp(lambda table, rows, vocab, dtype: (table[rows], rows), _add)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def finish_together(x: jax.Array, kernel: jax.Array, scattered: int) -> tuple[jax.Array, jax.Array]:
    """Identity, whose backward pass computes the kernel's gradient before it continues from x's.

    Otherwise the TPU's scheduler delays the gradients of kernels and keeps their inputs alive, such
    as an MLP's activations during the backward pass of attention. The barrier holds the kernel's
    gradient with the dimension in front that will be scattered, as a native reduce-scatter needs.
    """
    return x, kernel


def _finish(scattered: int, _: None, grads: tuple) -> tuple[jax.Array, jax.Array]:
    dx, dkernel = grads
    dx, dkernel = jax.lax.optimization_barrier((dx, jnp.moveaxis(dkernel, scattered, 0)))
    return dx, jnp.moveaxis(dkernel, 0, scattered)


finish_together.defvjp(lambda x, kernel, scattered: ((x, kernel), None), _finish)


@jax.custom_vjp
def leave_together(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Identity, whose backward pass waits for the gradients of all arrays."""
    return arrays


leave_together.defvjp(
    lambda *arrays: (arrays, None), lambda _, grads: jax.lax.optimization_barrier(grads)
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def copy_to_ranks(x: jax.Array, name: str) -> jax.Array:
    """Identity, whose gradient is summed over the ranks of a mesh axis."""
    return x


copy_to_ranks.defvjp(lambda x, name: (x, None), lambda name, _, grad: (jax.lax.psum(grad, name),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def sum_over_ranks(x: jax.Array, name: str) -> jax.Array:
    """Sums over the ranks of a mesh axis; every rank already holds the gradient of the sum."""
    return jax.lax.psum(x, name)


sum_over_ranks.defvjp(lambda x, name: (jax.lax.psum(x, name), None), lambda name, _, grad: (grad,))
