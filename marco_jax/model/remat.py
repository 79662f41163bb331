"""Rematerialisation policies: what a layer keeps for its backward pass instead of recomputing it.

Every policy keeps the layer's input, since the layers are scanned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

# Names of intermediate values of Attention and MLP. ATTENDED is the output of the attention
# kernel, with its log-normaliser if the kernel has one. GATHERED is a gathered weight, which only
# a layout with `keep_gathered` names; all policies keep it.
QUERY, KEY, VALUE, ATTENDED = "query", "key", "value", "attended"
RESIDUAL, GATE, UP = "residual", "gate", "up"
GATHERED = "gathered"
_PRODUCTS = (QUERY, KEY, VALUE, ATTENDED, RESIDUAL, GATE, UP)

_POLICIES = jax.checkpoint_policies
REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    # Keeps whatever the backward pass reads.
    "none": None,
    # Computes no matrix product twice.
    "minimal": _POLICIES.save_only_these_names(*_PRODUCTS, GATHERED),
    # Like minimal, with the kept values moved to host memory.
    "offload": _POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=[GATHERED],
        names_which_can_be_offloaded=list(_PRODUCTS),
        offload_src="device",
        offload_dst="pinned_host",
    ),
    # Recomputes projections and MLP, but not the attention kernel.
    "attention": _POLICIES.save_only_these_names(ATTENDED, GATHERED),
    # Recomputes the whole layer.
    "full": _POLICIES.save_only_these_names(GATHERED),
}


def named(x: jax.Array, name: str) -> jax.Array:
    """Names a value, so that a policy can keep it."""
    return checkpoint_name(x, name)


def rematerialize(body: Callable, policy: str) -> Callable:
    """Wraps the body of a scan over layers so that it keeps what REMAT_POLICIES[policy] names."""
    if policy not in REMAT_POLICIES:
        raise ValueError(f"remat is {policy!r}: choose one of {', '.join(REMAT_POLICIES)}")
    if policy == "none":
        return body
    # prevent_cse only guards against merging across scan iterations, which scan rules out.
    return jax.checkpoint(body, policy=REMAT_POLICIES[policy], prevent_cse=False)
