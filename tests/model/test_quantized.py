"""Products in 8 bits stay near those in full precision, and so does training with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.quantized import quantized_product
from marco_jax.training.step import StepOptions
from tests.training.test_step import make_trainer, random_batch

pytest.importorskip("qwix", reason="the extra 'quantize' is not installed")


def relative(found, expected):
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


@pytest.mark.parametrize(("name", "most"), [("int8", 0.02), ("fp8", 0.08)])
def test_a_product_and_its_gradients_are_near_those_in_float32(name, most):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 16, 4, 32))
    kernel = jax.random.normal(keys[1], (4, 32, 64))
    weights = jax.random.normal(keys[2], (2, 16, 64))

    def exact(x, kernel):
        return jnp.tensordot(x, kernel, axes=2)

    def rounded(x, kernel):
        return quantized_product(x, kernel, 2, name)

    assert rounded(x, kernel).dtype == x.dtype
    assert 0 < relative(rounded(x, kernel), exact(x, kernel)) < most
    grads = [
        jax.grad(lambda x, kernel, f=f: jnp.vdot(f(x, kernel), weights), argnums=(0, 1))(x, kernel)
        for f in (rounded, exact)
    ]
    for found, expected in zip(*grads, strict=True):
        assert 0 < relative(found, expected) < 1.5 * most


def test_the_factors_of_every_product_of_a_layer_have_eight_bits():
    trainer = make_trainer({"fsdp": 2}, jax.devices()[:2], StepOptions(quantize="int8"))
    batch = trainer.abstract_batch(8, 32)
    text = trainer.step.lower(trainer.abstract_state(), batch).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    eight = [line for line in products if line.count("xi8>") == 2]
    # Seven matrices of a layer: forward, and the gradients of both factors.
    assert len(eight) == 3 * 7


@pytest.mark.slow
def test_fifty_steps_in_int8_follow_those_in_float32():
    losses = {}
    for name in ("none", "int8"):
        trainer = make_trainer({"fsdp": 2}, jax.devices()[:2], StepOptions(quantize=name))
        state, found = trainer.init(0), []
        for step in range(50):
            batch = jax.device_put(random_batch(step % 5), trainer.batch_sharding)
            state, metrics = trainer.step(state, batch)
            found.append(float(metrics.loss_sums.sum() / metrics.loss_counts.sum()))
        losses[name] = np.array(found)
    plain = losses["none"]
    assert plain[-1] < 0.9 * plain[0]
    assert np.abs(losses["int8"] - plain).max() < 0.01 * plain[0]
