"""Descriptions of TPU slices, for which programs compile on any machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import jax

from marco_jax.extras import require
from marco_jax.runtime.chips import slice_shape


def topology_devices(name: str, num_slices: int = 1) -> list[jax.Device]:
    """The devices of a topology such as "v5p:4x4x4" (generation, chips per dimension).

    Needs libtpu, the TPU compiler, but no TPU.

    Raises:
        ValueError: there is no such slice, or this libtpu does not know it.
        MissingExtra: libtpu is not installed.
    """
    slice_shape(name)
    # Outside a TPU machine, libtpu must not query metadata, nor lock itself to one process.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    require("plan")
    from jax.experimental import topologies

    options: dict[str, object] = {"num_slices": num_slices} if num_slices > 1 else {}
    if name.startswith("v4:"):
        # JAX runs the two cores of a v4 chip as one device.
        options["chip_config_name"] = "megacore"
    try:
        with _quiet():
            described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"topology {name!r} is unknown to this libtpu: {reason}") from None
    return list(described.devices)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discards libtpu's messages on standard error about missing TPUs."""
    saved = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
