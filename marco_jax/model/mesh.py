"""The device mesh and the one table of rules: logical axis -> mesh axis.

The same rules place parameters, optimizer state, activations and KV caches, in training and in
decoding. A mesh of one device is an ordinary mesh: no code asks how many devices there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from marco_jax.model.config import Qwen2Config
from marco_jax.model.parameters import Params, axis_sizes, parameter_tree

MESH_AXES = ("data", "fsdp", "tensor", "context")

Rules = tuple[tuple[str, tuple[str, ...]], ...]

# Parameters: `embed` is split over fsdp, everything with heads or features over tensor. Norms are
# small and stay whole. Activations carry names of their own, so that a rule can move one without
# the other.
DEFAULT_RULES: Rules = (
    ("layers", ()),
    ("vocab", ("tensor",)),
    ("embed", ("fsdp",)),
    ("norm", ()),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("head_dim", ()),
    ("mlp", ("tensor",)),
    ("batch", ("data", "fsdp")),
    ("length", ("context",)),
    ("cache_length", ()),
    ("activation_embed", ()),
    ("activation_heads", ("tensor",)),
    ("activation_kv_heads", ("tensor",)),
    ("activation_mlp", ("tensor",)),
    ("activation_vocab", ("tensor",)),
)


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mesh and the rules that place logical axes on it. Hashable: a static argument of jit."""

    mesh: Mesh
    rules: Rules = DEFAULT_RULES

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """The PartitionSpec of an array with these logical axes (None: not split)."""
        rules = dict(self.rules)
        unknown = [axis for axis in axes if axis is not None and axis not in rules]
        if unknown:
            raise ValueError(f"logical axis {unknown[0]!r} has no rule: add it to the rules")
        entries = (rules[axis] if axis else () for axis in axes)
        return PartitionSpec(*(entry if entry else None for entry in entries))

    def named(self, *axes: str | None) -> NamedSharding:
        """The NamedSharding of an array with these logical axes; none at all: replicated."""
        return NamedSharding(self.mesh, self.spec(axes))

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Pins the layout of an intermediate array inside jit."""
        return jax.lax.with_sharding_constraint(x, self.named(*axes))

    def ways(self, axis: str) -> int:
        """Into how many parts a logical axis is split."""
        return int(np.prod([self.mesh.shape[name] for name in dict(self.rules)[axis]], dtype=int))


def parameter_shardings(config: Qwen2Config, sharding: Sharding) -> Params:
    """A tree of NamedSharding, shaped like the parameters."""
    return parameter_tree(config, lambda row: sharding.named(*row.logical_axes))


def create_mesh(
    axes: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over all devices; one axis may be -1 and takes what the others leave.

    Args:
        axes: sizes of `data`, `fsdp`, `tensor`, `context`; absent ones are 1. The default puts
            every device on `fsdp`.
        devices: defaults to all devices of all processes.

    Raises:
        ValueError: an unknown axis, or sizes whose product is not the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict.fromkeys(MESH_AXES, 1) | dict(axes if axes is not None else {"fsdp": -1})
    unknown = set(sizes) - set(MESH_AXES)
    if unknown:
        raise ValueError(f"mesh axis {sorted(unknown)[0]!r} is not one of {', '.join(MESH_AXES)}")
    free = [name for name, size in sizes.items() if size == -1]
    known = int(np.prod([size for size in sizes.values() if size != -1]))
    if len(free) == 1 and known > 0 and len(devices) % known == 0:
        sizes[free[0]] = len(devices) // known
    shape = tuple(sizes[name] for name in MESH_AXES)
    if int(np.prod(shape)) != len(devices) or min(shape) < 1:
        asked = " x ".join(f"{name} {size}" for name, size in sizes.items() if size != 1) or "1"
        raise ValueError(
            f"mesh {asked} does not fill {len(devices)} devices: "
            "make the product equal, or set one axis to -1"
        )
    grid = mesh_utils.create_device_mesh(shape, devices=devices, allow_split_physical_axes=True)
    # Auto axes: with Explicit ones (jax.make_mesh's default) constraints would become assertions.
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def replicate_kv_heads(rules: Rules) -> Rules:
    """The same rules with every KV head on every tensor rank (for tensor > KV heads)."""
    replicated = ("kv_heads", "activation_kv_heads")
    return tuple((name, () if name in replicated else axes) for name, axes in rules)


def check_mesh(config: Qwen2Config, sharding: Sharding, **batch_axes: int) -> None:
    """Refuses a mesh that does not divide the model, before anything compiles.

    Args:
        config: the model.
        sharding: mesh and rules.
        **batch_axes: lengths of activation axes that must divide too (`batch=`, `length=`).

    Raises:
        ValueError: naming the axis, the sizes and the remedy.
    """
    remedies: dict[str, Any] = {
        "kv_heads": "use a smaller tensor axis, or set config.mesh.replicate_kv_heads",
        "heads": "use a smaller tensor axis",
        "vocab": "use a smaller tensor axis",
        "mlp": "use a smaller tensor axis",
        "embed": "use a smaller fsdp axis and a larger data axis",
        "batch": "change config.batch.sequences_per_chip or the data and fsdp axes",
        "length": "change config.batch.length or the context axis",
    }
    for axis, size in (axis_sizes(config) | batch_axes).items():
        ways = sharding.ways(axis)
        if size % ways:
            names = " x ".join(dict(sharding.rules)[axis])
            raise ValueError(
                f"{axis} is {size}, which the mesh axis {names} of {ways} does not divide: "
                f"{remedies.get(axis, 'change the mesh')}"
            )
