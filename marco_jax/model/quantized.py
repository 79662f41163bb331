"""Matrix products in 8 bits, forward and backward, by qwix (the extra "quantize").

Values stay bfloat16 between products. Each product rounds both factors to 8 bits, with one scale
for every row of one and column of the other, the largest magnitude of each; the backward pass does
so with the incoming gradient, and uses the rounded factors of the forward pass.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from marco_jax.extras import optional

# The type of factors, and that of incoming gradients, which vary more.
_TYPES = {
    "int8": (jnp.int8, jnp.int8),
    "fp8": (jnp.float8_e4m3fn, jnp.float8_e5m2),
}
QUANTIZATIONS = ("none", *_TYPES)


def quantized_product(x: jax.Array, kernel: jax.Array, inputs: int, name: str) -> jax.Array:
    """Multiplies [..., *inputs] by [*inputs, *outputs] in 8 bits; the dtype of the result is x's.

    Args:
        x: bfloat16 or float32.
        kernel: like x.
        inputs: how many axes are summed over.
        name: one of QUANTIZATIONS but "none".

    Raises:
        MissingExtra: qwix is not installed.
    """
    options = _options(name)
    from qwix._src.core.dot_general_qt import dot_general_qt

    summed = tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs))
    return dot_general_qt(x, kernel, (summed, ((), ())), options).astype(x.dtype)


@functools.cache
def _options(name: str) -> Any:
    with optional(f"quantize={name}"):
        from qwix._src.core.dot_general_qt import DotGeneralQtConfig
    factors, gradients = _TYPES[name]
    return DotGeneralQtConfig(
        lhs_qtype=factors,
        rhs_qtype=factors,
        dlhs_grad_qtype=gradients,
        drhs_grad_qtype=gradients,
    )
