"""Every implementation of attention gives the values and gradients of the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.attention import ContextRank, attention, choose_attention
from marco_jax.model.layout import zigzag
from tests.model.packed_attention import attend

BATCH, LENGTH, HEAD_DIM = 2, 256, 128


def packed(rng):
    """Positions and segment ids of rows of ragged documents with padding behind them."""
    positions, segment_ids = np.zeros((2, BATCH, LENGTH), np.int32)
    for row in range(BATCH):
        start, segment = 0, 1
        while (size := int(rng.integers(3, 90))) + start <= LENGTH - 9:
            positions[row, start : start + size] = np.arange(size)
            segment_ids[row, start : start + size] = segment
            start, segment = start + size, segment + 1
        positions[row, start:] = np.arange(LENGTH - start)
    return jnp.asarray(positions), jnp.asarray(segment_ids)


def operands(heads, kv_heads, head_dim=HEAD_DIM):
    rng = np.random.default_rng(heads)
    shapes = ((heads,), (kv_heads,), (kv_heads,), (heads,))
    arrays = [rng.standard_normal((BATCH, LENGTH, *shape, head_dim)) for shape in shapes]
    return [jnp.asarray(x, jnp.float32) for x in arrays], packed(rng)


def value_and_grads(implementation, arrays, positions, segment_ids):
    *operands, cotangent = arrays

    out, pull = jax.vjp(lambda *x: attend(implementation, positions, segment_ids, *x), *operands)
    return out, pull(cotangent)


@pytest.mark.parametrize(
    ("implementation", "heads", "kv_heads", "head_dim"),
    [
        ("blocked", 4, 4, 32),
        ("blocked", 14, 2, 64),
        ("splash_interpreted", 2, 2, 128),
        ("splash_interpreted", 6, 2, 128),
        ("splash_interpreted", 2, 1, 64),
    ],
)
def test_implementations_agree(implementation, heads, kv_heads, head_dim):
    arrays, (positions, segment_ids) = operands(heads, kv_heads, head_dim)
    expected, expected_grads = value_and_grads("xla", arrays, positions, segment_ids)
    found, grads = value_and_grads(implementation, arrays, positions, segment_ids)
    # float32 with other orders of summation; values are of order 1.
    np.testing.assert_allclose(found, expected, atol=2e-5)
    for grad, reference in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, reference, atol=2e-5 * float(jnp.abs(reference).max()))


def test_pieces_of_rows_on_context_ranks_give_the_whole():
    """Splash on what rank r holds of zigzagged rows, keys whole, is the whole's places."""
    (query, key, value, _), (positions, segment_ids) = operands(2, 1)
    ranks = 1
    whole, _ = value_and_grads(
        "splash_interpreted", [query, key, value, query], positions, segment_ids
    )
    ranks = 2
    order = np.asarray(zigzag(jnp.arange(LENGTH)[None], ranks))[0].reshape(ranks, -1)
    for rank in range(ranks):
        mine = order[rank]
        out = attention(
            query[:, mine],
            key,
            value,
            query_positions=positions[:, mine],
            key_positions=positions,
            query_segment_ids=segment_ids[:, mine],
            key_segment_ids=segment_ids,
            implementation="splash_interpreted",
            context=ContextRank(jnp.int32(rank), ranks),
        )
        np.testing.assert_allclose(out, whole[:, mine], atol=2e-5)


def test_the_platform_and_the_length_choose():
    bf16, f32 = jnp.bfloat16, jnp.float32
    assert choose_attention("auto", "tpu", bf16, 4096) == "splash"
    assert choose_attention("auto", "tpu", bf16, 100) == "xla"
    assert choose_attention("auto", "gpu", f32, 4096) == "xla"
    assert choose_attention("auto", "cpu", f32, 256) == "blocked"
    assert choose_attention("auto", "cpu", f32, 256, context_ranks=2) == "xla"
    assert choose_attention("splash", "cpu", f32, 256) == "splash_interpreted"
    with pytest.raises(ValueError, match="attention is 'flash': choose one of auto"):
        choose_attention("flash", "cpu", f32, 256)
    with pytest.raises(ValueError, match="rows have 100 positions.*multiple of 128"):
        choose_attention("splash", "tpu", bf16, 100)


def test_a_gpu_packs_segments_where_cudnn_can():
    def choose(name="auto", dtype=jnp.bfloat16, length=4096, ranks=1, capability="9.0"):
        return choose_attention(
            name, "gpu", dtype, length, ranks, "NVIDIA H200", compute_capability=capability
        )

    assert (
        choose() == choose("cudnn") == choose(length=4095) == choose(capability="10.0") == "cudnn"
    )
    # Older GPUs, and rows that are split, get the mask as a bias, whose length must be even.
    assert choose(capability="8.0") == choose(capability="") == choose(ranks=2) == "cudnn_masked"
    assert choose(capability="8.0", length=4095) == choose(capability="gfx942") == "xla"
    assert choose(dtype=jnp.float32) == "xla"
    with pytest.raises(ValueError, match="'cudnn' on gpu in float32 .* set attention=auto"):
        choose("cudnn", dtype=jnp.float32)
    with pytest.raises(ValueError, match="'cudnn' on cpu in bfloat16"):
        choose_attention("cudnn", "cpu", jnp.bfloat16, 4096)
