"""Attention by cuDNN: what it is called with, and what is made of its results.

cuDNN runs on no CPU. Programs are lowered for CUDA and read; values come from an emulation of its
two calls, which reads segments by their offsets and lengths as cuDNN does.
"""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model import cudnn
from marco_jax.model.attention import attention
from marco_jax.model.layout import Plain
from marco_jax.model.qwen2 import abstract_params, bind
from marco_jax.model.qwen2_config import Qwen2Config
from tests.model.cudnn_emulation import emulated_backward, emulated_forward
from tests.model.packed_attention import attend

LENGTH, HEAD_DIM = 96, 16
FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"


def rows_of(*documents):
    """Positions and segment ids of rows with documents of these sizes, and padding behind them."""
    positions, segment_ids = np.zeros((2, len(documents), LENGTH), np.int32)
    for row, sizes in enumerate(documents):
        assert sum(sizes) <= LENGTH
        start = 0
        for number, size in enumerate(sizes, start=1):
            positions[row, start : start + size] = np.arange(size)
            segment_ids[row, start : start + size] = number
            start += size
        positions[row, start:] = np.arange(LENGTH - start)
    return jnp.asarray(positions), jnp.asarray(segment_ids)


PACKED = {
    "packed, with padding": rows_of([30, 1, 40], [5, 60, 20, 2]),
    "one document a row": rows_of([LENGTH], [LENGTH]),
    "one document and padding": rows_of([50], [LENGTH - 1]),
    "a row of padding": rows_of([], [LENGTH // 2] * 2),
    "only padding": rows_of([], []),
    "as many segments as a call takes": rows_of([3] * 14, [10, 20]),
    "one more, in one row": rows_of([3] * 16, [LENGTH]),
    "a segment a token": rows_of([1] * LENGTH, [1] * LENGTH),
}


@pytest.fixture
def emulated(monkeypatch):
    monkeypatch.setattr(cudnn, "cudnn_forward", emulated_forward)
    monkeypatch.setattr(cudnn, "cudnn_backward", emulated_backward)


def value_and_grads(implementation, heads, kv_heads, positions, segment_ids):
    rng = np.random.default_rng(heads)
    batch = segment_ids.shape[0]
    counts = (heads, kv_heads, kv_heads, heads)
    arrays = [rng.standard_normal((batch, LENGTH, count, HEAD_DIM)) for count in counts]
    documents = (segment_ids > 0)[..., None, None]

    def run(*operands):
        out = attend(implementation, positions, segment_ids, *operands)
        return jnp.where(documents, out, 0)

    @jax.jit
    def all_of(*operands):
        *inputs, cotangent = operands
        out, pull = jax.vjp(run, *inputs)
        return out, *pull(cotangent)

    return all_of(*(jnp.asarray(x, jnp.float32) for x in arrays))


@pytest.mark.parametrize(
    ("implementation", "rows", "heads", "kv_heads"),
    [
        *(("cudnn", rows, 6, 2) for rows in PACKED),
        ("cudnn", "packed, with padding", 4, 4),
        ("cudnn_masked", "packed, with padding", 6, 2),
        ("cudnn_masked", "one document a row", 4, 4),
    ],
)
def test_values_and_gradients_are_those_of_the_mask(
    emulated, implementation, rows, heads, kv_heads
):
    expected = value_and_grads("xla", heads, kv_heads, *PACKED[rows])
    found = value_and_grads(implementation, heads, kv_heads, *PACKED[rows])
    for one, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, reference, atol=2e-5 * max(1, float(abs(reference).max())))


def test_padding_gives_zeros_and_takes_no_gradient(emulated):
    positions, segment_ids = PACKED["packed, with padding"]
    shape = (*segment_ids.shape, 2, HEAD_DIM)
    operand = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    call = functools.partial(cudnn.packed_attention, segment_ids=segment_ids)
    out, pull = jax.vjp(call, operand, operand, operand)
    for array in (out, *pull(jnp.ones_like(out))):
        np.testing.assert_array_equal(array[segment_ids == 0], 0)
        assert np.isfinite(array).all()


@pytest.mark.parametrize(
    ("rows", "calls"), [("only padding", 0), ("one document a row", 1), ("a segment a token", 12)]
)
def test_calls_follow_the_number_of_segments(rows, calls):
    found = cudnn.Segments.of(PACKED[rows][1])
    assert found.calls == calls
    assert cudnn.SEGMENTS_PER_ROW == 8  # PACKED is made for it.


def test_offsets_are_in_elements_of_their_array():
    _, segment_ids = rows_of([3, 4], [5])
    slots = cudnn.Segments.of(segment_ids).of_call(jnp.int32(0))
    lengths, offsets = slots.operands(heads=6, head_dim=10)
    np.testing.assert_array_equal(lengths.reshape(-1)[:4], [3, 4, 5, 0])
    expected = np.array([0, 3, LENGTH, 2 * LENGTH, 2 * LENGTH]) * 60
    np.testing.assert_array_equal(offsets.reshape(-1)[:5], expected)
    np.testing.assert_array_equal(offsets.reshape(-1)[5:], 2 * LENGTH * 60)


def lowered_calls(function, *operands):
    """(target, backend config, operand types) of cuDNN's calls in the program for CUDA."""
    text = jax.jit(function).trace(*operands).lower(lowering_platforms=("cuda",)).as_text()
    calls = []
    for line in text.splitlines():
        if found := re.search(r"custom_call @(__cudnn\S+?)\(", line):
            config = re.search(r'backend_config = "(.*?)"', line)[1].replace("\\22", '"')
            types = re.search(r"\} : \((.*?)\) ->", line)[1]
            fields = json.loads(config)["cudnn_fmha_backend_config"]
            calls.append((found[1], fields, re.findall(r"tensor<(.*?)>", types)))
    return calls


def attention_loss(implementation, positions, segment_ids):
    def loss(query, key, value):
        out = attend(implementation, positions, segment_ids, query, key, value)
        return out.astype(jnp.float32).sum()

    return loss


def bf16_operands():
    shapes = ((2, LENGTH, heads, HEAD_DIM) for heads in (6, 2, 2))
    return [jnp.zeros(shape, jnp.bfloat16) for shape in shapes]


def test_the_program_for_cuda_packs_segments_under_a_causal_mask():
    loss = attention_loss("cudnn", *PACKED["packed, with padding"])
    calls = lowered_calls(jax.grad(loss, (0, 1, 2)), *bf16_operands())
    assert [target for target, *_ in calls] == [FORWARD, BACKWARD]
    for _, config, types in calls:
        assert config["mask_type"] == "PADDING_CAUSAL"
        assert config["max_seg_per_batch"] == cudnn.SEGMENTS_PER_ROW
        assert config["fmha_scale"] == HEAD_DIM**-0.5 and config["dropout_rate"] == 0
        # Lengths and offsets of queries and keys; nothing of [length, length].
        assert types[-4:] == ["2x8xi32", "2x8xi32", "2x9xi32", "2x9xi32"]
        assert not [shape for shape in types if f"{LENGTH}x{LENGTH}" in shape]


def test_a_mask_is_a_bias_and_causal_over_whole_rows_alone():
    positions, segment_ids = PACKED["packed, with padding"]
    loss = attention_loss("cudnn_masked", positions, segment_ids)
    for target, config, types in lowered_calls(jax.grad(loss, (0, 1, 2)), *bf16_operands()):
        assert "ScaleBias" in target and config["mask_type"] == "CAUSAL"
        assert f"2x1x{LENGTH}x{LENGTH}xbf16" in types
    half = LENGTH // 2

    def part(query, key, value):
        return attention(
            *(query[:, half:], key, value),
            query_positions=positions[:, half:],
            key_positions=positions,
            query_segment_ids=segment_ids[:, half:],
            key_segment_ids=segment_ids,
            implementation="cudnn_masked",
        )

    ((_, config, types),) = lowered_calls(part, *bf16_operands())
    assert config["mask_type"] == "NO_MASK" and f"2x1x{half}x{LENGTH}xbf16" in types


def test_vmap_calls_cudnn_for_one_after_the_other():
    loss = attention_loss("cudnn", *PACKED["packed, with padding"])
    stacked = [jnp.stack([x, x, x]) for x in bf16_operands()]
    calls = lowered_calls(jax.vmap(jax.grad(loss, (0, 1, 2))), *stacked)
    assert [types[0] for *_, types in calls] == [f"2x{LENGTH}x6x{HEAD_DIM}xbf16"] * 2


@pytest.mark.parametrize(
    ("remat", "forward_calls"),
    [("none", 1), ("minimal", 1), ("attention", 1), ("full", 2)],
)
@pytest.mark.parametrize("implementation", ["cudnn", "cudnn_masked"])
def test_remat_keeps_what_the_backward_call_reads(implementation, remat, forward_calls):
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HEAD_DIM,
    )
    positions, segment_ids = PACKED["packed, with padding"]

    def loss(params):
        hidden, _ = bind(config, params)(
            jnp.zeros_like(segment_ids),
            positions,
            segment_ids,
            dtype=jnp.bfloat16,
            remat=remat,
            layout=Plain(implementation),
        )
        return hidden.astype(jnp.float32).sum()

    targets = [name for name, *_ in lowered_calls(jax.grad(loss), abstract_params(config))]
    backward = [name for name in targets if name.endswith("Backward")]
    assert len(backward) == 1 and len(targets) == 1 + forward_calls


def test_sizes_that_cudnn_does_not_have_are_refused():
    odd = jnp.zeros((1, LENGTH, 2, 12), jnp.bfloat16)
    segments = jnp.ones((1, LENGTH), jnp.int32)
    with pytest.raises(ValueError, match="model.head_dim is 12: .* set attention=xla"):
        cudnn.packed_attention(odd, odd, odd, segments)
    huge = jax.ShapeDtypeStruct((4096, 4096, 28, 128), jnp.bfloat16)
    with pytest.raises(ValueError, match="4096 rows of 4096 positions .*: lower batch.sequences"):
        jax.eval_shape(cudnn.packed_attention, huge, huge, huge, segments)
