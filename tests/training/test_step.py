"""The step's value is a matter of the batch alone: not of the mesh, microbatches or packing."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.parameters import flatten
from marco_jax.model.qwen2 import bind, init_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.objectives.losses import LossOptions
from marco_jax.training.optimizer import StageSchedule, create_optimizer, join_stages
from marco_jax.training.step import Batch, StepOptions, Trainer

TINY = PRESETS["tiny"]
SOURCES = 3


def make_trainer(axes, devices, options=None, weight_decay=0.1, config=TINY):
    schedule = StageSchedule(steps=50, peak=1e-2, warmup_steps=5).build()
    optimizer = create_optimizer(
        config, schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=weight_decay, clip_norm=1.0
    )
    sharding = Sharding(create_mesh(axes, devices))
    return Trainer(config, optimizer, schedule, sharding, SOURCES, options or StepOptions())


def random_batch(seed, rows=8, length=32, vocab=256):
    """Packed rows with ragged documents, padding at the end, and a source a document."""
    rng = np.random.default_rng(seed)
    arrays = {name: np.zeros((rows, length), np.int32) for name in Batch._fields}
    arrays["loss_weights"] = np.zeros((rows, length), np.float32)
    for row in range(rows):
        start, segment = 0, 1
        while (size := int(rng.integers(2, 14))) + start <= length:
            part = (row, slice(start, start + size))
            stream = rng.integers(0, vocab, size + 1)
            arrays["tokens"][part], arrays["targets"][part] = stream[:-1], stream[1:]
            arrays["positions"][part], arrays["segment_ids"][part] = np.arange(size), segment
            arrays["loss_weights"][part] = 1.0
            arrays["source_ids"][part] = rng.integers(0, SOURCES)
            start, segment = start + size, segment + 1
    return Batch(**arrays)


def run(trainer, steps):
    """Losses of `steps` steps from seed 0, and the last state and metrics."""
    state, losses = trainer.init(seed=0), []
    for step in range(steps):
        batch = jax.device_put(random_batch(step), trainer.batch_sharding)
        state, metrics = trainer.step(state, batch)
        losses.append(float(metrics.loss_sums.sum() / metrics.token_counts.sum()))
    return losses, state, metrics


def test_eight_devices_give_the_loss_curve_of_one(one_device):
    alone, _, _ = run(make_trainer({"fsdp": 1}, one_device), steps=20)
    meshed, state, _ = run(make_trainer({"fsdp": 4, "tensor": 2}, None), steps=20)
    # Other orders of summation, through 20 updates.
    np.testing.assert_allclose(meshed, alone, rtol=1e-4)
    kernel = state.params["layers"]["mlp"]["gate_proj"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size
    moments = [x for x in jax.tree.leaves(state.optimizer) if x.shape == kernel.shape]
    assert len(moments) >= 2
    assert all(x.sharding.spec == kernel.sharding.spec for x in moments[:2])


@pytest.mark.parametrize(
    "options",
    [
        StepOptions(accumulation_steps=4),
        StepOptions(loss=LossOptions(logits_mib=0.05)),
        StepOptions(accumulation_steps=2, loss=LossOptions(logits_mib=0.01), remat="full"),
        StepOptions(remat="minimal"),
        StepOptions(remat="attention"),
        StepOptions(remat="offload"),
    ],
)
def test_how_a_step_is_cut_does_not_change_it(one_device, options):
    plain, state, metrics = run(make_trainer({"fsdp": 1}, one_device), steps=3)
    cut, cut_state, cut_metrics = run(make_trainer({"fsdp": 1}, one_device, options), steps=3)
    np.testing.assert_allclose(cut, plain, rtol=1e-5)
    np.testing.assert_allclose(cut_metrics.loss_sums, metrics.loss_sums, rtol=1e-5)
    np.testing.assert_allclose(cut_metrics.grad_norm, metrics.grad_norm, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(cut_state.params), jax.tree.leaves(state.params), strict=True):
        # Adam turns a gradient near zero into a step of full size: rounding shows at 1e-4.
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_kept_weights_are_gathered_once_whatever_else_is_kept():
    for remat in ("full", "minimal", "attention", "offload"):
        gathers = []
        for keep in (False, True):
            options = StepOptions(remat=remat, keep_gathered=keep)
            trainer = make_trainer({"fsdp": 4, "tensor": 2}, jax.devices(), options)
            batch = trainer.abstract_batch(8, 32)
            jaxpr = str(trainer.step.trace(trainer.abstract_state(), batch).jaxpr)
            gathers.append(len(re.findall(r"= all_gather\[", jaxpr)))
        # Of the seven matrices of a layer, over the two mesh axes of fsdp.
        assert gathers[0] - gathers[1] == 2 * 7


def test_kept_weights_do_not_change_the_step():
    losses = []
    for keep in (False, True):
        options = StepOptions(remat="full", keep_gathered=keep)
        losses.append(run(make_trainer({"fsdp": 8}, jax.devices(), options), steps=2)[0])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_the_loss_is_the_mean_over_target_tokens_of_plain_cross_entropy(one_device):
    trainer = make_trainer({"fsdp": 1}, one_device)
    batch = random_batch(seed=7)
    params = init_params(TINY, seed=0)
    model = bind(TINY, params)
    hidden, _ = model(batch.tokens, batch.positions, batch.segment_ids)
    logprobs = np.asarray(jax.nn.log_softmax(model.logits(hidden)), np.float64)
    losses = -np.take_along_axis(logprobs, batch.targets[..., None], -1)[..., 0]
    _, metrics = trainer.step(
        trainer.init(0, params), jax.device_put(batch, trainer.batch_sharding)
    )
    for source in range(SOURCES):
        chosen = (batch.source_ids == source) & (batch.loss_weights > 0)
        assert metrics.token_counts[source] == chosen.sum()
        np.testing.assert_allclose(metrics.loss_sums[source], losses[chosen].sum(), rtol=1e-5)


def test_the_loss_of_a_source_is_that_of_its_documents_one_by_one():
    """Packed on eight devices, against each document in a row of its own."""
    batch = random_batch(seed=8)
    params = init_params(TINY, seed=0)
    alone = []
    for row in range(len(batch.tokens)):
        for segment in range(1, batch.segment_ids[row].max() + 1):
            chosen = np.flatnonzero(batch.segment_ids[row] == segment)
            alone.append((batch.source_ids[row, chosen[0]], row, chosen))
    longest = max(len(chosen) for *_, chosen in alone)
    tokens, targets, valid = (np.zeros((len(alone), longest), np.int32) for _ in range(3))
    for number, (_, row, chosen) in enumerate(alone):
        tokens[number, : len(chosen)] = batch.tokens[row, chosen]
        targets[number, : len(chosen)] = batch.targets[row, chosen]
        valid[number, : len(chosen)] = 1
    positions = np.broadcast_to(np.arange(longest, dtype=np.int32), tokens.shape)
    model = bind(TINY, params)
    hidden, _ = model(tokens, positions, valid)
    logprobs = np.asarray(jax.nn.log_softmax(model.logits(hidden)), np.float64)
    losses = -np.take_along_axis(logprobs, targets[..., None], -1)[..., 0] * valid
    trainer = make_trainer({"fsdp": 4, "tensor": 2}, jax.devices())
    _, metrics = trainer.step(
        trainer.init(0, params), jax.device_put(batch, trainer.batch_sharding)
    )
    sources = np.array([source for source, *_ in alone])
    for source in range(SOURCES):
        assert metrics.token_counts[source] == valid[sources == source].sum()
        # Sums of some hundred float32 losses in another order.
        wanted = losses[sources == source].sum()
        np.testing.assert_allclose(metrics.loss_sums[source], wanted, rtol=1e-5)


def test_padding_has_no_gradient_and_no_count(one_device):
    trainer = make_trainer({"fsdp": 1}, one_device)
    batch = random_batch(seed=1)
    padded = jnp.where(batch.segment_ids == 0, 17, batch.tokens)
    state = trainer.init(0)
    other = trainer.init(0)
    _, metrics = trainer.step(state, jax.device_put(batch, trainer.batch_sharding))
    _, changed = trainer.step(
        other, jax.device_put(batch._replace(tokens=padded), trainer.batch_sharding)
    )
    assert (batch.segment_ids == 0).any()
    np.testing.assert_array_equal(metrics.loss_sums, changed.loss_sums)
    np.testing.assert_allclose(metrics.grad_norm, changed.grad_norm, rtol=1e-6)


@pytest.mark.parametrize("config", [TINY, PRESETS["qwen3_tiny"]], ids=["biases", "norms"])
def test_norms_and_biases_do_not_decay(one_device, config):
    states = []
    for decay in (0.0, 0.5):
        trainer = make_trainer({"fsdp": 1}, one_device, weight_decay=decay, config=config)
        batch = jax.device_put(random_batch(0), trainer.batch_sharding)
        states.append(flatten(trainer.step(trainer.init(0), batch)[0].params))
    for path, plain in states[0].items():
        same = bool(jnp.array_equal(plain, states[1][path]))
        assert same == path.endswith(("scale", "bias")), path


def test_schedules_warm_up_fall_and_join():
    first = StageSchedule(steps=10, peak=1.0, shape="cosine", warmup_steps=4, final_share=0.1)
    second = StageSchedule(steps=10, peak=0.5, shape="wsd", final_share=0.0)
    schedule = join_stages([first, second])
    rates = [float(schedule(step)) for step in range(20)]
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0])
    assert rates[4:10] == sorted(rates[4:10], reverse=True)
    assert min(rates[4:10]) >= 0.1
    np.testing.assert_allclose(rates[10:18], 0.5)
    assert rates[19] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="schedule is 'step'"):
        StageSchedule(steps=1, peak=1.0, shape="step")
    with pytest.raises(ValueError, match="warm-up of 9"):
        StageSchedule(steps=5, peak=1.0, warmup_steps=9)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_clip_norm_of_0_clips_nothing(clip_norm):
    fields = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.0}
    optimizer = create_optimizer(TINY, lambda step: 0.1, clip_norm=clip_norm, **fields)
    params = init_params(TINY, seed=0)
    grads = jax.tree.map(lambda leaf: 100.0 * jnp.ones_like(leaf), params)
    updates, (_, (moments, *_)) = optimizer.update(grads, optimizer.init(params), params)
    # Adam's first step has the size of the learning rate, whatever the scale of the gradient.
    np.testing.assert_allclose(jax.tree.leaves(updates)[0], -0.1, rtol=1e-4)
    # The first moment is a tenth of the gradient that came through the clip.
    largest = max(float(leaf.max()) for leaf in jax.tree.leaves(moments.mu))
    assert largest == pytest.approx(10.0) if clip_norm == 0 else largest < 0.1
