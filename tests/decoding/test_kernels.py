"""The compiled programs: what they gather, and that they compile without weights."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.decoding.abstract import abstract_kernels
from marco_jax.decoding.caches import Reading
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.qwen2 import LayerInputs
from marco_jax.model.qwen2_config import PRESETS

# A vocabulary beside which a layer's largest matrix (64 x 128) is small.
WIDE = dataclasses.replace(PRESETS["tiny"], vocab_size=8192, num_hidden_layers=3)
LARGEST_MATRIX = WIDE.hidden_size * WIDE.intermediate_size


def gathered_sizes(text):
    """Elements of the result of every all-gather in a program's text."""
    shapes = re.findall(r"= \(?\w+\[([\d,]*)\][^=]*? all-gather(?:-start)?\(", text)
    return [math.prod(int(size) for size in shape.split(",") if size) for shape in shapes]


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_no_table_is_gathered(axes):
    """With parameters over 8 devices nothing larger than one layer's matrix is all-gathered."""
    sharding = Sharding(create_mesh(axes))
    names = []
    for name, kernel, arguments in abstract_kernels(WIDE, sharding, batch=8, length=32):
        text = kernel.lower(*arguments).compile().as_text()
        sizes = gathered_sizes(text)
        names.append(name)
        assert max(sizes) <= LARGEST_MATRIX, name
        matrix = LARGEST_MATRIX // axes.get("tensor", 1)
        if name == "decode":
            # Activations travel: nothing as large as a weight does.
            assert max(sizes) <= matrix // 4
        else:
            # Weights are gathered layer by layer, inside the loop over layers.
            assert matrix in sizes, name
    assert names == ["extend", "score", "score_after_prefix", "prefill", "decode"]


def test_decoding_on_one_cpu_copies_no_layer():
    """The products of the decode loop read the stacked parameters' own memory."""
    kernels = abstract_kernels(WIDE, None, batch=2, length=32)
    kernel, arguments = next((k, a) for name, k, a in kernels if name == "decode")
    compiled = kernel.lower(*arguments).compile()
    analysis = compiled.memory_analysis()
    layer = sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(arguments[1].layers[0]))
    assert analysis.temp_size_in_bytes < 2 * layer
    assert "all-gather" not in compiled.as_text()


def test_splash_reads_prompts_as_plain_attention_does():
    """What a TPU reads prompts with, by the kernel's interpreter."""
    random = np.random.default_rng(0)
    query = jnp.asarray(random.normal(size=(2, 128, 4, 128)), jnp.float32)
    key, value = (jnp.asarray(random.normal(size=(2, 128, 2, 128)), jnp.float32) for _ in range(2))
    positions = jnp.broadcast_to(jnp.arange(128), (2, 128))
    inputs = LayerInputs(positions, None, positions, None, None, None)
    outs = [
        Reading(None, None).attend(0, query, key, value, inputs, implementation)[0]
        for implementation in ("splash_interpreted", "mapped", "xla")
    ]
    # Softmax of 128 float32 scores, summed in another order.
    np.testing.assert_allclose(outs[0], outs[2], atol=2e-5)
    np.testing.assert_allclose(outs[1], outs[2], atol=2e-6)


def test_a_batch_that_does_not_divide_is_refused():
    sharding = Sharding(create_mesh({"fsdp": 8}))
    with pytest.raises(ValueError, match="batch is 4: rows are split over 8 devices"):
        next(abstract_kernels(WIDE, sharding, batch=4, length=32))
