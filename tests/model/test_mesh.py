"""Meshes are built from sizes and refused, with a remedy, where they do not fit the model."""

import dataclasses

import jax
import pytest
from jax.sharding import PartitionSpec

from marco_jax.model.mesh import (
    Sharding,
    check_mesh,
    create_mesh,
    parameter_shardings,
    replicate_kv_heads,
)
from marco_jax.model.qwen2_config import PRESETS


def test_one_axis_takes_what_the_others_leave():
    assert dict(create_mesh({"fsdp": -1, "tensor": 2}).shape) == {
        "slice": 1,
        "data": 1,
        "fsdp": 2,
        "fsdp_minor": 2,
        "tensor": 2,
        "context": 1,
    }
    assert create_mesh(devices=jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"fsdp": 3}, "does not fill 8 devices"),
        ({"fsdp": -1, "tensor": 3}, "does not fill 8 devices"),
        ({"fsdp": -1, "tensor": -1}, "set one axis to -1"),
        ({"expert": 8}, "mesh axis 'expert' is not one of"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        create_mesh(axes)


def test_slices_are_the_outermost_axis():
    mesh = create_mesh({"num_slices": 2, "fsdp": -1})
    assert mesh.shape["slice"] == 2
    first, second = mesh.devices
    # Devices without slices of their own: each half stands for one.
    assert {d.id for d in first.flat} == set(range(4))
    assert {d.id for d in second.flat} == set(range(4, 8))
    with pytest.raises(ValueError, match="mesh num_slices 3 .*does not fill 8 devices"):
        create_mesh({"num_slices": 3, "fsdp": 2})


def test_heads_that_do_not_divide_are_refused_with_the_remedy():
    # Qwen2-7B: 28 heads, 4 KV heads.
    sharding = Sharding(create_mesh({"tensor": 8}))
    with pytest.raises(ValueError, match="heads is 28, .* tensor of 8 .* smaller tensor axis"):
        check_mesh(PRESETS["qwen2_7b"], sharding)
    # Qwen2-72B divides 8 ways; with 4 KV heads it would not, unless they are replicated.
    check_mesh(PRESETS["qwen2_72b"], sharding)
    few = dataclasses.replace(PRESETS["qwen2_72b"], num_key_value_heads=4)
    with pytest.raises(ValueError, match="kv_heads is 4.*replicate_kv_heads"):
        check_mesh(few, sharding)
    check_mesh(few, dataclasses.replace(sharding, rules=replicate_kv_heads(sharding.rules)))
    with pytest.raises(ValueError, match="batch is 6.*sequences_per_chip"):
        check_mesh(PRESETS["tiny"], Sharding(create_mesh({"data": 4, "fsdp": 2})), batch=6)


def test_parameters_are_split_by_the_rules():
    sharding = Sharding(create_mesh({"fsdp": 4, "tensor": 2}))
    tree = parameter_shardings(PRESETS["tiny"], sharding)
    query = tree["layers"]["self_attn"]["q_proj"]["kernel"]
    assert query.spec == PartitionSpec(None, ("fsdp", "fsdp_minor", "context"), ("tensor",), None)
    with pytest.raises(ValueError, match="logical axis 'experts' has no rule"):
        sharding.spec(("experts",))
