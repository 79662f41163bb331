"""What runs differently on a CPU computes the same values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model import cpu
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import PRESETS

CONFIG = dataclasses.replace(PRESETS["tiny"], vocab_size=320)


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, seed=0)


@pytest.fixture(scope="module")
def sharding():
    return Sharding(create_mesh({}, jax.devices()[:1]))


@pytest.mark.parametrize("rows", [1, 3, 64, 65])
def test_products_with_the_weights_first_are_the_same(rows):
    random = np.random.default_rng(rows)
    x, weights = random.normal(size=(rows, 24)), random.normal(size=(40, 24))
    found = jax.jit(cpu.few_rows_product)(jnp.float32(x), jnp.float32(weights))
    np.testing.assert_allclose(found, x @ weights.T, atol=1e-4)


def test_views_of_one_row_share_memory_and_those_of_several_have_outputs_first(params, sharding):
    kernels = params["layers"]["self_attn"]["q_proj"]["kernel"]  # [layers, embed, heads, head_dim]
    one = cpu.layer_views(params, CONFIG, sharding, rows=1)
    many = cpu.layer_views(params, CONFIG, sharding, rows=2)
    assert (one.transposed, many.transposed) == (False, True)
    start, size = kernels.unsafe_buffer_pointer(), kernels.nbytes // len(kernels)
    for layer, kernel in enumerate(kernels):
        view = one.layers[layer]["self_attn"]["q_proj"]["kernel"]
        assert view.unsafe_buffer_pointer() == start + layer * size
        copy = many.layers[layer]["self_attn"]["q_proj"]["kernel"]
        np.testing.assert_array_equal(copy, kernel.reshape(CONFIG.hidden_size, -1).T)
        scale = many.layers[layer]["input_layernorm"]["scale"]
        np.testing.assert_array_equal(scale, params["layers"]["input_layernorm"]["scale"][layer])


def test_layers_too_large_to_copy_are_read_as_they_are(params, sharding, monkeypatch):
    monkeypatch.setattr(cpu, "_TRANSPOSED_BYTES", 1000)
    assert not cpu.layer_views(params, CONFIG, sharding, rows=32).transposed
