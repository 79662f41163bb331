"""What the model promises whatever the weights: shapes, causality, packing, caches, meshes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.layout import Plain
from marco_jax.model.mesh import Sharding, create_mesh, parameter_shardings, replicate_kv_heads
from marco_jax.model.parameters import flatten, parameter_table, unflatten
from marco_jax.model.qwen2 import abstract_params, bind, init_params
from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.model.rotary import Rotary

TINY = PRESETS["tiny"]
TIED = dataclasses.replace(TINY, tie_word_embeddings=True)
QWEN3 = PRESETS["qwen3_tiny"]


def logits(config, params, tokens, positions=None, segment_ids=None, **options):
    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)

    def run(params, tokens, positions, segment_ids):
        model = bind(config, params)
        hidden, _ = model(tokens, positions, segment_ids, **options)
        return model.logits(hidden)

    return np.asarray(jax.jit(run)(params, tokens, positions, segment_ids))


def varied_params(config):
    """Random parameters that differ enough to show, also where they start equal."""
    params = flatten(init_params(config, seed=1))
    generator = np.random.default_rng(2)
    for path, value in params.items():
        if path.endswith("scale") and "_norm/" in path:
            params[path] = value + generator.normal(scale=0.3, size=value.shape)
        elif value.ndim > 1:
            params[path] = value * 4
    return unflatten(params)


@pytest.fixture(scope="module")
def params():
    return varied_params(TINY)


def random_tokens(batch, length, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, length)).astype(np.int32)


# The published totals: marco_llm.md section 5.2 of the project's reference, from the model cards.
@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("qwen2_0_5b", 494_032_768),
        ("qwen2_1_5b", 1_543_714_304),
        ("qwen2_7b", 7_615_616_512),
        ("qwen2_72b", 72_706_203_648),
        ("qwen3_0_6b", 596_049_920),
        ("qwen3_1_7b", 1_720_574_976),
        ("qwen3_4b", 4_022_468_096),
        ("qwen3_8b", 8_190_735_360),
        ("qwen3_14b", 14_768_307_200),
        ("qwen3_32b", 32_762_123_264),
    ],
)
def test_presets_have_the_published_parameter_counts(preset, count):
    config = PRESETS[preset]
    assert config.num_parameters == count
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config))) == count


@pytest.mark.parametrize("preset", ["qwen2_1_5b", "qwen3_8b"])
def test_flops_are_six_for_each_weight_of_a_product(preset):
    config = dataclasses.replace(PRESETS[preset], tie_word_embeddings=False)
    matrices = sum(
        int(np.prod(row.shape(config)))
        for row in parameter_table(config)
        if row.inputs or row.path.startswith("lm_head")
    )
    attention = 6 * config.num_hidden_layers * 512 * config.num_attention_heads * config.head_dim
    assert config.flops_per_token(512) == 6 * matrices + attention


@pytest.mark.parametrize("config", [TINY, TIED, QWEN3])
def test_modules_hold_exactly_the_parameters_of_the_table(config):
    shapes = {path: leaf.shape for path, leaf in flatten(init_params(config, seed=0)).items()}
    assert shapes == {row.path: row.shape(config) for row in parameter_table(config)}


def test_a_later_token_changes_nothing_before_it(params):
    tokens = random_tokens(1, 24)
    changed = tokens.copy()
    changed[0, 12] = (changed[0, 12] + 1) % 256
    before, after = logits(TINY, params, tokens), logits(TINY, params, changed)
    np.testing.assert_array_equal(before[0, :12], after[0, :12])
    assert np.abs(before[0, 12:] - after[0, 12:]).max() > 1e-3


def test_packed_documents_are_scored_as_if_alone(params):
    lengths = (5, 1, 9, 4)
    tokens = random_tokens(1, sum(lengths) + 3)
    segment_ids = np.zeros_like(tokens)
    positions = np.zeros_like(tokens)
    start, alone = 0, []
    for number, length in enumerate(lengths, start=1):
        part = slice(start, start + length)
        segment_ids[0, part], positions[0, part] = number, np.arange(length)
        alone.append(logits(TINY, params, tokens[:, part])[0])
        start += length
    packed = logits(TINY, params, tokens, positions, segment_ids)[0, :start]
    # float32 rounding only: sums run over rows of other lengths.
    np.testing.assert_allclose(packed, np.concatenate(alone), atol=2e-5)


def test_token_zero_is_an_ordinary_token(params):
    tokens = np.array([[0, 0, 7, 0, 9]], np.int32)
    whole = logits(TINY, params, tokens, segment_ids=np.ones_like(tokens))
    for end in range(1, 6):
        part = logits(TINY, params, tokens[:, :end])
        np.testing.assert_allclose(whole[:, :end], part, atol=2e-5)
    assert np.abs(whole[0, 1] - whole[0, 3]).max() > 1e-3


@pytest.mark.parametrize("remat", ["minimal", "full"])
@pytest.mark.parametrize("config", [TINY, QWEN3], ids=["biases", "norms"])
def test_remat_changes_memory_not_gradients(config, remat):
    params = varied_params(config)
    tokens = random_tokens(2, 16)
    positions = np.broadcast_to(np.arange(16), tokens.shape)

    def loss(params, remat):
        hidden, _ = bind(config, params)(tokens, positions, remat=remat)
        return jnp.sum(hidden**2)

    plain = jax.jit(jax.grad(loss), static_argnums=1)(params, "none")
    again = jax.jit(jax.grad(loss), static_argnums=1)(params, remat)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize(
    "axes",
    [{"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"data": 2, "fsdp": 2, "context": 2}, {"tensor": 4}],
)
@pytest.mark.parametrize("config", [TINY, QWEN3], ids=["biases", "norms"])
def test_the_mesh_does_not_change_the_logits(config, axes):
    params = varied_params(config)
    count = int(np.prod(list(axes.values())))
    sharding = Sharding(create_mesh(axes, jax.devices()[:count]))
    if axes.get("tensor", 1) > config.num_key_value_heads:
        sharding = dataclasses.replace(sharding, rules=replicate_kv_heads(sharding.rules))
    tokens = random_tokens(8, 16)
    laid = jax.device_put(params, parameter_shardings(config, sharding))
    on_mesh = logits(config, laid, tokens, layout=Plain())
    np.testing.assert_allclose(on_mesh, logits(config, params, tokens), atol=2e-5)


def test_initial_values_do_not_depend_on_the_mesh():
    alone = init_params(TINY, seed=3)
    sharded = init_params(TINY, seed=3, sharding=Sharding(create_mesh({"fsdp": 4, "tensor": 2})))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(sharded), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rotary_phases_tell_late_positions_apart():
    rotary = Rotary.at(jnp.array([[32_766, 32_767]]), TINY)
    inverse = TINY.rope_theta ** -(np.arange(0, TINY.head_dim, 2) / TINY.head_dim)
    expected = np.cos(np.array([32_766, 32_767])[:, None] * inverse.astype(np.float64))
    # float32 holds a phase of 32,767 rad to 2e-3; bf16 would be off by a whole turn.
    np.testing.assert_allclose(rotary.cos[0, :, 0], expected, atol=4e-3)


def test_bf16_computation_stays_near_float32(params):
    tokens = random_tokens(2, 16)
    full = logits(TINY, params, tokens)
    half = logits(TINY, params, tokens, dtype=jnp.bfloat16)
    # The error of transformers on these weights in bf16 is 3.6% (ours 2.9%).
    assert np.std(full - half) < 0.036 * np.std(full)


def test_a_config_survives_hugging_face_and_names_what_is_wrong():
    config = PRESETS["qwen2_72b"]
    fields = config.to_huggingface()
    assert Qwen2Config.from_huggingface(fields) == config
    legacy = {**fields, "rope_theta": 1e6}
    del legacy["rope_parameters"]
    assert Qwen2Config.from_huggingface(legacy) == config
    with pytest.raises(ValueError, match="model_type is 'llama'"):
        Qwen2Config.from_huggingface({**fields, "model_type": "llama"})
    with pytest.raises(ValueError, match="hidden_size is absent"):
        Qwen2Config.from_huggingface({k: v for k, v in fields.items() if k != "hidden_size"})
    with pytest.raises(ValueError, match="yarn"):
        Qwen2Config.from_huggingface({**fields, "rope_scaling": {"type": "yarn", "factor": 4}})
