"""What a layer keeps for its backward pass, by name; everything else is computed again.

Every policy keeps the layer's input, since the layers are scanned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

# The names that Attention and MLP give to their results. ATTENDED covers the output of the
# attention kernel and, where the kernel has one, its log-normaliser.
QUERY, KEY, VALUE, ATTENDED = "query", "key", "value", "attended"
RESIDUAL, GATE, UP = "residual", "gate", "up"
_PRODUCTS = (QUERY, KEY, VALUE, ATTENDED, RESIDUAL, GATE, UP)

_POLICIES = jax.checkpoint_policies
REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    # Keep whatever the backward pass reads.
    "none": None,
    # No matrix product is computed twice.
    "minimal": _POLICIES.save_only_these_names(*_PRODUCTS),
    # As minimal, with the kept values moved to the host's memory.
    "offload": _POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=list(_PRODUCTS),
        offload_src="device",
        offload_dst="pinned_host",
    ),
    # The attention kernel is not run again; projections and MLP are.
    "attention": _POLICIES.save_only_these_names(ATTENDED),
    # The whole layer is computed again.
    "full": _POLICIES.nothing_saveable,
}


def named(x: jax.Array, name: str) -> jax.Array:
    """Gives a value the name by which a policy may keep it."""
    return checkpoint_name(x, name)


def rematerialize(body: Callable, policy: str) -> Callable:
    """`body` of a scan over layers, keeping what REMAT_POLICIES[policy] says."""
    if policy not in REMAT_POLICIES:
        raise ValueError(f"remat is {policy!r}: choose one of {', '.join(REMAT_POLICIES)}")
    if policy == "none":
        return body
    # prevent_cse only guards against merging across scan iterations, which scan rules out.
    return jax.checkpoint(body, policy=REMAT_POLICIES[policy], prevent_cse=False)
