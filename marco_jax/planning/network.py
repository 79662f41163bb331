"""How fast the links of a TPU slice carry the collectives of a mesh axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jax.sharding import Mesh

from marco_jax.planning.hlo import Collective
from marco_jax.runtime.chips import chip_of, slice_shape

# The halves of a tpu7x chip exchange this many times what a link carries
# (docs.cloud.google.com/tpu/docs/tpu7x, "die-to-die interconnect").
_WITHIN_A_CHIP = 6


def axis_bandwidths(mesh: Mesh, topology: str) -> dict[str, float]:
    """Bytes per second that a device sends at best in a collective over each mesh axis.

    A collective runs over one mesh axis at a time, so it uses the links of those dimensions of the
    slice along which this axis lies, not all of them. Along a dimension that is a ring, data goes
    both ways round; along a line, or a part of a ring, the ends receive from one side alone, which
    is half as fast.

    Args:
        mesh: of the topology's devices.
        topology: of each slice, such as "v5p:4x4x4".

    Returns:
        Bandwidths by axis name, of axes within a slice that have more than one device; the axis
        `slice` has the data-centre network's.
    """
    coordinates = np.array([device.coords for device in mesh.devices.flat])
    coordinates = coordinates.reshape(*mesh.devices.shape, -1)
    chip, shape, found = chip_of(topology), slice_shape(topology), {}
    for number, (name, size) in enumerate(mesh.shape.items()):
        if size == 1:
            continue
        if name == "slice":
            found[name] = chip.dcn_bandwidth
            continue
        along = np.moveaxis(coordinates, number, 0).reshape(size, -1, coordinates.shape[-1])[:, 0]
        links = 0
        for dimension, chips in enumerate(shape):
            taken = len(np.unique(along[:, dimension]))
            if taken > 1:
                links += 2 if taken == chips and _is_ring(dimension, shape) else 1
        found[name] = (links or _WITHIN_A_CHIP) * chip.link_bandwidth
    return found


def _is_ring(dimension: int, shape: Sequence[int]) -> bool:
    """Whether the ends of a dimension are linked: all of 16 on a plane, whole cubes in space."""
    if len(shape) == 2:
        return shape[dimension] == 16
    return all(size % 4 == 0 for size in shape)


def seconds_on_wire(
    collectives: Iterable[Collective], bandwidths: dict[str, float]
) -> tuple[float, float]:
    """Seconds that collectives take within slices and between them, one after the other.

    A collective over several axes at once is counted as if it used the links of all.
    """
    within = between = 0.0
    for item in collectives:
        if "slice" in item.axes:
            between += item.wire_bytes / bandwidths["slice"]
        else:
            within += item.wire_bytes / sum(bandwidths[name] for name in item.axes)
    return within, between
