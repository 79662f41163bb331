"""The device mesh and the table of sharding rules: logical axis -> mesh axes.

The same rules shard parameters, optimizer state, activations and KV caches, in training and in
decoding. A mesh of one device needs no special case.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from marco_jax.model.parameters import Params, axis_sizes, parameter_tree
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.shutdown import end_quietly

# The axes of `config.mesh`, in mesh order. Slices (`num_slices`) are connected by the data-centre
# network; each has a replica of the model.
CONFIG_AXES = ("num_slices", "data", "fsdp", "tensor", "context")

# The config's `fsdp` becomes two mesh axes, and collectives run over one of them at a time: a TPU
# has a native reduce-scatter (rather than an all-reduce and a slice) only over an axis that does
# not span a slice. The loss also splits the vocabulary over the minor one.
MESH_AXES = ("slice", "data", "fsdp", "fsdp_minor", "tensor", "context")

# The leading axis of a mesh whose groups of devices train different runs (`lane_sharding`).
LANE_AXIS = "lane"

Rules = tuple[tuple[str, tuple[str, ...]], ...]

# Parameters: `embed` is split over fsdp and context (context ranks would otherwise be replicas),
# axes of heads or features over tensor. Norms are small and replicated.
DEFAULT_RULES: Rules = (
    ("layers", ()),
    ("vocab", ("tensor",)),
    ("embed", ("fsdp", "fsdp_minor", "context")),
    ("norm", ()),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("head_dim", ()),
    ("mlp", ("tensor",)),
    ("rank", ()),
    ("batch", ("slice", "data", "fsdp", "fsdp_minor")),
    ("length", ("context",)),
)


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mesh and its rules: logical axis -> mesh axes. Hashable, for static arguments of jit."""

    mesh: Mesh
    rules: Rules = DEFAULT_RULES

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """The PartitionSpec of an array with these logical axes (None for an unsplit one)."""
        rules = dict(self.rules)
        unknown = [axis for axis in axes if axis is not None and axis not in rules]
        if unknown:
            raise ValueError(f"logical axis {unknown[0]!r} has no rule: add it to the rules")
        entries = (rules[axis] if axis else () for axis in axes)
        return PartitionSpec(*(entry if entry else None for entry in entries))

    def named(self, *axes: str | None) -> NamedSharding:
        """The NamedSharding of an array with these logical axes; replicated if there are none."""
        return NamedSharding(self.mesh, self.spec(axes))

    def names(self, axis: str) -> tuple[str, ...]:
        """The mesh axes with more than one device that split a logical axis, major first."""
        return tuple(name for name in dict(self.rules)[axis] if self.mesh.shape[name] > 1)

    def ways(self, axis: str) -> int:
        """The number of parts that a logical axis is split into."""
        return math.prod(self.mesh.shape[name] for name in dict(self.rules)[axis])

    @property
    def platform(self) -> str:
        """The platform of the mesh's devices: cpu, gpu or tpu (also for an abstract topology)."""
        return self.mesh.devices.flat[0].platform


def parameter_shardings(config: Qwen2Config, sharding: Sharding) -> Params:
    """A tree of NamedSharding, shaped like the parameters."""
    return parameter_tree(config, lambda row: sharding.named(*row.logical_axes))


def create_mesh(
    axes: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Creates a mesh over all devices; one axis may be -1, for the devices that remain.

    Args:
        axes: sizes of `num_slices`, `data`, `fsdp`, `tensor`, `context`; absent ones are 1. The
            default puts every device on `fsdp`.
        devices: defaults to all devices of all processes.

    Raises:
        ValueError: an unknown axis, or sizes whose product is not the number of devices.
    """
    end_quietly()
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict.fromkeys(CONFIG_AXES, 1) | dict(axes if axes is not None else {"fsdp": -1})
    unknown = set(sizes) - set(CONFIG_AXES)
    if unknown:
        names = ", ".join(CONFIG_AXES)
        raise ValueError(f"mesh axis {sorted(unknown)[0]!r} is not one of {names}")
    free = [name for name, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(free) == 1 and known > 0 and len(devices) % known == 0:
        sizes[free[0]] = len(devices) // known
    if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
        given = " x ".join(f"{name} {size}" for name, size in sizes.items() if size != 1) or "1"
        raise ValueError(
            f"mesh {given} does not fill {len(devices)} devices: "
            "make the product equal, or set one axis to -1"
        )
    minor = _minor(sizes["fsdp"])
    shape = (sizes["data"], sizes["fsdp"] // minor, minor, sizes["tensor"], sizes["context"])
    grid = _device_grid(sizes["num_slices"], shape, devices)
    # Auto axes: with Explicit ones (jax.make_mesh's default) constraints would become assertions.
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def lane_sharding(sharding: Sharding, lanes: int) -> Sharding:
    """Divides a mesh into `lanes` groups of devices, along a leading axis LANE_AXIS.

    The groups are parts of the slices, data and fsdp axes, in this order; each group keeps the
    whole tensor and context axes. Devices keep their order, so that one program may use arrays of
    both meshes.

    Raises:
        ValueError: the lanes do not divide these axes.
    """
    shape, left = dict(sharding.mesh.shape), lanes
    sizes = {"slice": shape["slice"], "data": shape["data"]}
    sizes["fsdp"] = shape["fsdp"] * shape["fsdp_minor"]
    for name, size in sizes.items():
        taken = math.gcd(size, left)
        sizes[name], left = size // taken, left // taken
        # Otherwise a group would hold parts of two ranks of this axis.
        if sizes[name] > 1:
            break
    if left > 1:
        parts = math.prod((shape["slice"], shape["data"], shape["fsdp"], shape["fsdp_minor"]))
        axes = ", ".join(f"{name} {size}" for name, size in shape.items() if size > 1) or "1 device"
        raise ValueError(
            f"{lanes} lanes do not divide the mesh ({axes}): choose a divisor of {parts} that "
            "takes whole ranks of the slices, then of data, then of fsdp"
        )
    minor = _minor(sizes["fsdp"])
    new = (sizes["slice"], sizes["data"], sizes["fsdp"] // minor, minor)
    grid = sharding.mesh.devices.reshape(lanes, *new, shape["tensor"], shape["context"])
    names = (LANE_AXIS, *MESH_AXES)
    return Sharding(Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names)), sharding.rules)


def _minor(fsdp: int) -> int:
    """The size of fsdp_minor, the largest divisor up to the root: 64 -> 8, 256 -> 16, 8 -> 2."""
    return max(size for size in range(1, math.isqrt(fsdp) + 1) if fsdp % size == 0)


def _device_grid(
    num_slices: int, shape: tuple[int, ...], devices: Sequence[jax.Device]
) -> np.ndarray:
    """Devices as [slice, *shape]; neighbours on an axis are neighbours on the slice's network."""
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", 0), []).append(device)
    if len(slices) == 1:
        # One slice, or devices without slices (CPUs in a test): equal parts simulate slices.
        part = len(devices) // num_slices
        slices = {i: list(devices[i * part : (i + 1) * part]) for i in range(num_slices)}
    if len(slices) != num_slices:
        raise ValueError(
            f"mesh.num_slices is {num_slices} but the devices form {len(slices)} slices: "
            f"set mesh.num_slices={len(slices)}"
        )
    grids = [
        mesh_utils.create_device_mesh(shape, devices=part, allow_split_physical_axes=True)
        for part in slices.values()
    ]
    return np.stack(grids)


def replicate_kv_heads(rules: Rules) -> Rules:
    """Rules that put every KV head on every tensor rank (for tensor > KV heads)."""
    return tuple((name, () if name == "kv_heads" else axes) for name, axes in rules)


def check_mesh(config: Qwen2Config, sharding: Sharding, **batch_axes: int) -> None:
    """Checks that a mesh divides the model's axes, before anything compiles.

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
        "length": "change config.batch.length or the context axis (each rank holds two parts)",
    }
    for axis, size in (axis_sizes(config) | batch_axes).items():
        # Each context rank holds one part of a row's first half and one of its second half.
        ways = sharding.ways(axis) * (2 if axis == "length" and sharding.names(axis) else 1)
        if size % ways:
            names = " x ".join(dict(sharding.rules)[axis])
            raise ValueError(
                f"{axis} is {size}, which the mesh axis {names} of {ways} does not divide: "
                f"{remedies.get(axis, 'change the mesh')}"
            )
    tensor, kv_heads = sharding.ways("heads"), config.num_key_value_heads
    if sharding.ways("kv_heads") != tensor and tensor % kv_heads and kv_heads % tensor:
        raise ValueError(
            f"kv_heads is {kv_heads} and the tensor axis has {tensor} ranks: they cannot be "
            "replicated, make one a multiple of the other"
        )
