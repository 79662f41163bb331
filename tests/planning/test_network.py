"""Slices that exist, and how fast the links of one carry the collectives of a mesh axis."""

import math

import pytest

from marco_jax.model.mesh import create_mesh
from marco_jax.planning.hlo import Collective
from marco_jax.planning.network import axis_bandwidths, seconds_on_wire
from marco_jax.planning.topology import topology_devices
from marco_jax.runtime.chips import CHIPS, chip_of, slice_shape


@pytest.mark.parametrize("name", ["v5e:16x16", "v6e:2x4", "v5p:2x2x1", "v4:4x4x8", "tpu7x:4x8x8"])
def test_slices_that_exist(name):
    assert math.prod(slice_shape(name)) <= chip_of(name).most_chips


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:16x32", "v5e has no such slice, it has 1x1, 2x2"),
        ("v6e:3x5", "v6e has no such slice"),
        ("v5p:4x4x6", "multiples of 4"),
        ("v5p:8x4x4", "in ascending order"),
        ("v5p:16x24x32", "at most 6,144 chips"),
        ("v5p:4x4", "a slice of v5p has 3 dimensions, not 2"),
        ("v5e:4x-4", "write GENERATION:CHIPS"),
        ("v5e", "write GENERATION:CHIPS"),
        ("v9:2x2", "the generation is not one of"),
    ],
)
def test_slices_that_do_not_exist(name, message):
    with pytest.raises(ValueError, match=message):
        slice_shape(name)


def bandwidths(name, **axes):
    """In units of a link's bandwidth."""
    pytest.importorskip("libtpu", reason="the TPU compiler (libtpu) is not installed")
    found = axis_bandwidths(create_mesh(axes, topology_devices(name)), name)
    return {axis: value / chip_of(name).link_bandwidth for axis, value in found.items()}


def test_a_mesh_axis_uses_the_links_of_its_own_dimensions():
    # Each of fsdp and fsdp_minor lies along one dimension of 16 chips, a ring: two directions.
    assert bandwidths("v5e:16x16", fsdp=256) == {"fsdp": 2, "fsdp_minor": 2}
    # Lines of four have no link between their ends.
    assert bandwidths("v5e:4x4", fsdp=16) == {"fsdp": 1, "fsdp_minor": 1}
    # A whole cube is a ring in each dimension; an axis of 16 takes two of them.
    assert bandwidths("v5p:4x4x4", data=4, fsdp=1, tensor=16) == {"data": 2, "tensor": 4}


def test_the_whole_slice_is_all_links():
    for name, chip in CHIPS.items():
        assert chip.ici_bandwidth == 2 * chip.dimensions * chip.link_bandwidth, name


def sends(size, *axes):
    return Collective("all-gather", axes, 2, 1, size, size, asynchronous=False)


def test_bytes_take_the_time_of_their_axes():
    rates = {"fsdp": 2.0, "fsdp_minor": 4.0, "slice": 0.5}
    sent = [sends(8.0, "fsdp"), sends(8.0, "fsdp_minor"), sends(12.0, "fsdp", "fsdp_minor")]
    assert seconds_on_wire(sent, rates) == (4 + 2 + 2, 0)
    assert seconds_on_wire([sends(1.0, "slice")], rates) == (0, 2)
