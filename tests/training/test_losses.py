"""The chunked loss is the plain one: value, gradients, z-loss, masked rows, tied heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.qwen2_config import PRESETS
from marco_jax.objectives.losses import LossOptions, cross_entropy, default_logits_mib
from marco_jax.training.assemble import create_sharding, create_trainer
from marco_jax.training.defaults import training_config

WORDS, EMBED = 300, 24


def plain(hidden, head, targets, weights, options):
    logits = jnp.einsum("ble,ve->blv", hidden, head, precision="highest")
    if options.vocab_size is not None:
        logits = logits.at[..., options.vocab_size :].set(-jnp.inf)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    losses = normaliser - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return (weights * (losses + options.z_loss * normaliser**2)).sum(), losses


def inputs(seed=0, batch=3, length=37, words=WORDS):
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((batch, length, EMBED)).astype(np.float32)
    head = rng.standard_normal((words, EMBED)).astype(np.float32)
    targets = rng.integers(0, 250, (batch, length)).astype(np.int32)
    weights = rng.choice([0.0, 0.5, 1.0], (batch, length)).astype(np.float32)
    return hidden, head, targets, weights


# 111 tokens: in one chunk, in chunks that divide them, in chunks that do not, one by one.
@pytest.mark.parametrize("logits_mib", [128.0, 0.0424, 0.02, 1e-6])
@pytest.mark.parametrize("extra", [{}, {"z_loss": 1e-2}, {"vocab_size": 250}])
def test_value_and_gradients_are_the_plain_ones(logits_mib, extra):
    hidden, head, targets, weights = inputs()
    options = LossOptions(logits_mib=logits_mib, **extra)

    def compare(function):
        value = jax.value_and_grad(function, argnums=(0, 1), has_aux=True)
        return jax.jit(value, static_argnums=4)(hidden, head, targets, weights, options)

    (total, losses), grads = compare(cross_entropy)
    (expected, expected_losses), expected_grads = compare(plain)
    # The bar for the value; gradients are sums of 111 terms of order 1.
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-5, atol=1e-5)
    for grad, reference in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, reference, atol=3e-6 * float(jnp.abs(reference).max()))


def test_the_gradient_scales_with_what_the_sum_is_used_for():
    hidden, head, targets, weights = inputs(1)
    options = LossOptions()

    def mean(hidden):
        return 3.0 * cross_entropy(hidden, head, targets, weights, options)[0] / weights.sum()

    grad = jax.grad(lambda x: cross_entropy(x, head, targets, weights, options)[0])(hidden)
    np.testing.assert_allclose(jax.grad(mean)(hidden), 3.0 * grad / weights.sum(), rtol=1e-5)


def test_padded_rows_count_unless_a_field_masks_them():
    hidden, head, targets, weights = inputs(2)
    head[250:] = 5.0  # rows that would dominate
    whole, masked = (
        cross_entropy(hidden, head, targets, weights, LossOptions(vocab_size=size))[0]
        for size in (None, 250)
    )
    assert float(whole) > float(masked)
    short = cross_entropy(hidden, head[:250], targets, weights)[0]
    np.testing.assert_allclose(masked, short, rtol=1e-6)
    grad = jax.grad(
        lambda head: cross_entropy(hidden, head, targets, weights, LossOptions(vocab_size=250))[0]
    )(jnp.asarray(head))
    assert not np.asarray(grad[250:]).any()


def test_logits_are_never_held_whole():
    """The compiled gradient at a real vocabulary keeps a chunk of logits, not all of them."""
    rows, words, embed = 2048, 151_936, 64
    options = LossOptions(logits_mib=32)
    shapes = (
        jax.ShapeDtypeStruct((1, rows, embed), jnp.float32),
        jax.ShapeDtypeStruct((words, embed), jnp.float32),
        jax.ShapeDtypeStruct((1, rows), jnp.int32),
        jax.ShapeDtypeStruct((1, rows), jnp.float32),
    )
    function = jax.grad(cross_entropy, argnums=(0, 1), has_aux=True)
    compiled = jax.jit(function, static_argnums=4).lower(*shapes, options).compile()
    gradient = words * embed * 4
    assert compiled.memory_analysis().temp_size_in_bytes < gradient + 4 * 32 * 2**20


def test_a_config_of_no_size_gets_the_chunks_of_its_platform():
    assert default_logits_mib("tpu") == LossOptions().logits_mib
    config = training_config()
    sharding = create_sharding(config, jax.devices("cpu")[:1])
    model = dataclasses.replace(PRESETS["small"], vocab_size=512)
    trainer = create_trainer(config, model, sharding, num_sources=1)
    assert trainer.options.loss.logits_mib == default_logits_mib("cpu") > LossOptions().logits_mib
    config.loss.logits_mib = 3
    trainer = create_trainer(config, model, sharding, num_sources=1)
    assert trainer.options.loss.logits_mib == 3
