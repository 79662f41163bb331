"""Memory, compute and bandwidth of TPU devices, by generation."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One JAX device (half a chip of tpu7x), with values of the vendor's data sheets.

    hbm_bytes; peak_flops of dense bf16; hbm_bandwidth and ici_bandwidth in bytes per second, the
    latter over all links in one direction; kinds are values of JAX's device_kind.
    """

    hbm_bytes: float
    peak_flops: float
    hbm_bandwidth: float
    ici_bandwidth: float
    kinds: tuple[str, ...]


GIB = 2**30
CHIPS = {
    "v4": Chip(32 * GIB, 275e12, 1.2e12, 150e9, ("TPU v4",)),
    "v5e": Chip(16 * GIB, 197e12, 0.82e12, 100e9, ("TPU v5 lite", "TPU v5e")),
    "v5p": Chip(95 * GIB, 459e12, 2.77e12, 300e9, ("TPU v5", "TPU v5p")),
    "v6e": Chip(32 * GIB, 918e12, 1.64e12, 224e9, ("TPU v6 lite", "TPU v6e")),
    "tpu7x": Chip(96 * GIB, 1153e12, 3.69e12, 300e9, ("TPU7x", "TPU v7x")),
}

# Bytes per second and device between slices: an assumption (the devices of a host share its
# network), not from a data sheet.
DCN_BANDWIDTH = 3.1e9


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5p:4x4x4"; raises ValueError for an unknown generation."""
    generation = topology.partition(":")[0]
    if generation not in CHIPS:
        raise ValueError(f"topology {topology!r}: the generation is not one of {', '.join(CHIPS)}")
    return CHIPS[generation]
