"""Loss and gradients are one device's on every mesh that the model admits."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from marco_jax.model.mesh import DEFAULT_RULES, Sharding, create_mesh, replicate_kv_heads
from marco_jax.model.parameters import flatten
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.training.optimizer import create_optimizer
from marco_jax.training.step import StepOptions, Trainer
from tests.training.test_step import SOURCES, TINY, random_batch

QWEN3 = PRESETS["qwen3_tiny"]
AXES = ("data", "fsdp", "tensor", "context")
MESHES = [sizes for sizes in itertools.product((1, 2, 4, 8), repeat=4) if np.prod(sizes) == 8]


def gradients(axes, devices, config=TINY, rules=DEFAULT_RULES, **options):
    optimizer = create_optimizer(
        config, lambda step: 0.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip_norm=1.0
    )
    sharding = Sharding(create_mesh(axes, devices), rules)
    trainer = Trainer(
        config, optimizer, lambda step: 0.0, sharding, SOURCES, StepOptions(**options)
    )
    params = jax.device_put(init_params(config, seed=3), trainer.state_shardings.params)
    batch = jax.device_put(random_batch(5), trainer.batch_sharding)
    return jax.jit(trainer.gradients)(params, batch)


@pytest.fixture(scope="module")
def alone(one_device):
    return {
        config: gradients({"fsdp": 1}, one_device, config)
        for config in (TINY, dataclasses.replace(TINY, tie_word_embeddings=True), QWEN3)
    }


def assert_same(found, expected):
    (sums, grads), (expected_sums, expected_grads) = found, expected
    np.testing.assert_allclose(sums[0], expected_sums[0], rtol=1e-5)
    np.testing.assert_array_equal(sums[1], expected_sums[1])
    expected_grads = flatten(expected_grads)
    for path, grad in flatten(grads).items():
        reference = np.asarray(expected_grads[path])
        # 1e-5 of the array's scale: elements are sums of a few hundred terms in other orders.
        scale = float(np.sqrt(np.mean(reference**2)))
        np.testing.assert_allclose(grad, reference, rtol=1e-5, atol=1e-5 * scale, err_msg=path)


@pytest.mark.parametrize("sizes", MESHES, ids=lambda sizes: "x".join(map(str, sizes)))
def test_every_mesh_of_eight_devices(sizes, alone):
    axes = dict(zip(AXES, sizes, strict=True))
    rules = DEFAULT_RULES
    if axes["tensor"] > TINY.num_attention_heads:
        pytest.skip("the tiny model has 4 heads")
    if axes["tensor"] > TINY.num_key_value_heads:
        rules = replicate_kv_heads(rules)
    for config, expected in alone.items():
        # Norms of heads differ from other norms where tensor ranks have heads of their own.
        if config.qk_norm and axes["tensor"] == 1:
            continue
        assert_same(gradients(axes, None, config, rules), expected)
