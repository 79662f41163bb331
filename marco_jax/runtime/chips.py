"""What devices can do: TPU generations, their slices that exist, and the peak FLOP/s of all."""

from __future__ import annotations

import dataclasses
import math
import re

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """One JAX device: a chip, or half a chip of tpu7x, whose links the halves share.

    hbm_bytes is what the TPU compiler lets a program use, a little less than there is; peak_flops
    of dense bf16; clock in cycles per second; hbm_bandwidth, link_bandwidth (one link to a
    neighbour, one direction) and dcn_bandwidth (to other slices) in bytes per second; dimensions
    of a slice; most_chips of a slice; kinds are values of JAX's device_kind.
    """

    hbm_bytes: float
    peak_flops: float
    clock: float
    hbm_bandwidth: float
    link_bandwidth: float
    dcn_bandwidth: float
    dimensions: int
    most_chips: int
    kinds: tuple[str, ...]

    @property
    def ici_bandwidth(self) -> float:
        """Bytes per second that a device sends over all links of a slice at once."""
        return 2 * self.dimensions * self.link_bandwidth


GIB = 2**30
# Memory by the compiler's error messages (libtpu 0.0.42), compute by cloud.google.com/tpu/docs,
# links and data-centre network by "How to Scale Your Model" (jax-ml.github.io/scaling-book). The
# clock is peak_flops by the FLOPs of a cycle that the compiler's estimates of products come to.
CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1.05e9, 1.2e12, 45e9, 6.25e9, 3, 4096, ("TPU v4",)),
    "v5e": Chip(
        15.75 * GIB, 197e12, 1.5e9, 0.82e12, 45e9, 3.125e9, 2, 256, ("TPU v5 lite", "TPU v5e")
    ),
    "v5p": Chip(95.74 * GIB, 459e12, 1.75e9, 2.77e12, 90e9, 6.25e9, 3, 6144, ("TPU v5", "TPU v5p")),
    "v6e": Chip(
        31.25 * GIB, 918e12, 1.75e9, 1.64e12, 90e9, 12.5e9, 2, 256, ("TPU v6 lite", "TPU v6e")
    ),
    "tpu7x": Chip(
        94.75 * GIB, 1153e12, 2.2e9, 3.69e12, 45e9, 6.25e9, 3, 9216, ("TPU7x", "TPU v7x")
    ),
}

# Peak dense bf16 FLOP/s of one device as JAX counts devices, by jax's device_kind (the vendors'
# data sheets). Other kinds have no MFU.
PEAK_FLOPS = {
    **{kind: chip.peak_flops for chip in CHIPS.values() for kind in chip.kinds},
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}

# Slices of two dimensions, and those of three that are smaller than a cube of 4x4x4; larger ones
# have multiples of four (cloud.google.com/tpu/docs, "Supported TPU configurations").
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4")


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5p:4x4x4"; raises ValueError for an unknown generation."""
    generation = topology.partition(":")[0]
    if generation not in CHIPS:
        raise ValueError(f"topology {topology!r}: the generation is not one of {', '.join(CHIPS)}")
    return CHIPS[generation]


def generation_of(device: jax.Device) -> str | None:
    """The generation of a TPU, also one of a topology; None for another or an unknown device."""
    kind = device.device_kind
    return next((name for name, chip in CHIPS.items() if kind in chip.kinds), None)


def slice_shape(topology: str) -> tuple[int, ...]:
    """Chips per dimension of a slice such as "v5p:4x4x4".

    Raises:
        ValueError: the generation is unknown, or has no such slice.
    """
    chip, shape = chip_of(topology), topology.partition(":")[2]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise ValueError(f"topology is {topology!r}: write GENERATION:CHIPS, for example v5p:4x4x4")
    sizes, generation = tuple(map(int, shape.split("x"))), topology.partition(":")[0]
    if len(sizes) != chip.dimensions:
        raise ValueError(
            f"topology {topology!r}: a slice of {generation} has {chip.dimensions} dimensions, "
            f"not {len(sizes)}"
        )
    if chip.dimensions == 2:
        known, exists = ", ".join(_FLAT), shape in _FLAT
    else:
        known = f"{', '.join(_SMALL)}, or multiples of 4 in ascending order such as 4x4x8, of at "
        known += f"most {chip.most_chips:,} chips"
        cubes = all(size % 4 == 0 for size in sizes) and list(sizes) == sorted(sizes)
        exists = shape in _SMALL or (cubes and math.prod(sizes) <= chip.most_chips)
    if not exists:
        raise ValueError(f"topology {topology!r}: {generation} has no such slice, it has {known}")
    return sizes
