"""Adapters: what trains, that merging them changes nothing, and that no mesh does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.lora import LoraOptions, adapter_table, init_adapters, merge, with_adapters
from marco_jax.model.mesh import DEFAULT_RULES, Sharding, create_mesh, replicate_kv_heads
from marco_jax.model.parameters import flatten
from marco_jax.model.qwen2 import bind, init_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.step import Batch, StepOptions, Trainer

TINY = PRESETS["tiny"]
QWEN3 = PRESETS["qwen3_tiny"]
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = LoraOptions(rank=4, alpha=8.0, targets=ALL, base_dtype="float32")


def make_trainer(axes=None, devices=None, lora=LORA, rules=DEFAULT_RULES, config=TINY):
    schedule = StageSchedule(steps=50, peak=1e-2).build()
    optimizer = create_optimizer(
        config, schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0, lora=lora
    )
    sharding = Sharding(create_mesh(axes or {"fsdp": 1}, devices), rules)
    return Trainer(config, optimizer, schedule, sharding, 1, StepOptions(lora=lora))


def random_batch(seed, rows=8, length=32):
    tokens = np.random.default_rng(seed).integers(0, 256, (rows, length + 1), np.int32)
    zeros = np.zeros((rows, length), np.int32)
    return Batch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        positions=zeros + np.arange(length, dtype=np.int32),
        segment_ids=zeros + 1,
        loss_weights=np.ones((rows, length), np.float32),
        source_ids=zeros,
    )


def moved(config=TINY):
    """Adapters whose B is no longer zero."""
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), init_adapters(config, LORA, 1)
    )


@pytest.mark.parametrize(
    ("config", "dtype", "bound"),
    [(TINY, "float32", 1e-5), (TINY, "bfloat16", 0.02), (QWEN3, "float32", 1e-5)],
)
def test_merged_equals_unmerged(config, dtype, bound):
    base = jax.tree.map(lambda x: x.astype(dtype), init_params(config, seed=0))
    batch = random_batch(0)
    inputs = (batch.tokens, batch.positions, batch.segment_ids)

    def logits(params, lora=None):
        model = bind(config, params, lora)
        return np.asarray(model.logits(model(*inputs)[0]))

    adapters = moved(config)
    apart = logits(with_adapters(base, adapters), LORA)
    merged = logits(merge(config, LORA, base, adapters))
    assert np.abs(apart - logits(base)).max() > 10 * bound * np.abs(apart).max()
    assert np.abs(apart - merged).max() <= bound * np.abs(apart).max()


def test_the_base_is_frozen_in_its_dtype_and_has_no_moments(one_device):
    lora = LoraOptions(rank=4, targets=("q_proj", "v_proj"))
    trainer = make_trainer(devices=one_device, lora=lora)
    params = init_params(TINY, seed=0)
    state = trainer.init(0, params)
    size = sum(np.prod(row.shape(TINY)) for row in adapter_table(TINY, lora))
    moments = [x for x in jax.tree.leaves(state.optimizer) if x.ndim]
    assert sum(x.size for x in moments) == 2 * size
    assert {x.dtype for x in jax.tree.leaves(state.frozen)} == {jnp.dtype("bfloat16")}
    frozen = jax.device_get(state.frozen)
    losses = []
    for _ in range(30):
        state, metrics = trainer.step(state, random_batch(0))
        losses.append(float(metrics.loss_sums.sum() / metrics.loss_counts.sum()))
    assert losses[-1] < losses[0] - 0.05
    for a, b in zip(jax.tree.leaves(frozen), jax.tree.leaves(state.frozen), strict=True):
        np.testing.assert_array_equal(a, b)
    # A model begins as the one that is adapted.
    begun = flatten(trainer.model_params(trainer.init(0, params)))
    np.testing.assert_array_equal(
        begun["layers/self_attn/q_proj/kernel"],
        params["layers"]["self_attn"]["q_proj"]["kernel"].astype(jnp.bfloat16),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "axes", "rules"),
    [
        (TINY, {"fsdp": 4, "tensor": 2}, DEFAULT_RULES),
        (TINY, {"fsdp": 2, "tensor": 4}, replicate_kv_heads(DEFAULT_RULES)),
        (TINY, {"fsdp": 2, "tensor": 2, "context": 2}, DEFAULT_RULES),
        (QWEN3, {"fsdp": 2, "tensor": 4}, replicate_kv_heads(DEFAULT_RULES)),
    ],
)
def test_gradients_do_not_depend_on_the_mesh(one_device, config, axes, rules):
    base, adapters, batch = init_params(config, seed=0), moved(config), random_batch(3)
    found = []
    whole = make_trainer(devices=one_device, config=config)
    for trainer in (whole, make_trainer(axes, rules=rules, config=config)):
        frozen = trainer.freeze(base)
        own = jax.device_put(adapters, trainer.state_shardings.params)
        placed = jax.device_put(batch, trainer.batch_sharding)
        sums, grads = jax.jit(trainer.gradients)(own, placed, frozen)
        found.append((float(sums.loss_sums.sum()), jax.device_get(flatten(grads))))
    (loss, alone), (other, meshed) = found
    assert other == pytest.approx(loss, rel=1e-6)
    for path, grad in alone.items():
        bound = 2e-5 * np.abs(grad).max()
        np.testing.assert_allclose(meshed[path], grad, atol=bound, err_msg=path)


def test_what_is_no_target_is_refused():
    with pytest.raises(ValueError, match=r"lora.targets names 'lm_head': choose from q_proj"):
        LoraOptions(rank=4, targets=("lm_head",))
    with pytest.raises(ValueError, match="lora.rank is 0"):
        LoraOptions(rank=0)
