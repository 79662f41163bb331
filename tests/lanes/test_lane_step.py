"""A step of several runs at once is, for each of them, the step that it takes alone."""

import functools

import jax
import numpy as np
import pytest

from marco_jax.lanes.lane_step import LaneBatch, LaneMetrics, LaneState, LaneStep
from marco_jax.model.mesh import Sharding, create_mesh, lane_sharding
from marco_jax.model.qwen2 import init_params
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.state import GuardOptions
from marco_jax.training.step import StepOptions, Trainer
from tests.training.test_step import SOURCES, TINY, random_batch

SHAPE = (8, 32)
# Adam with this epsilon does not turn the rounding of a gradient near zero into a step of full
# size, so that parameters can be compared closely.
EPS = 1e-4


def trainer_on(axes, **options):
    schedule = StageSchedule(steps=50, peak=1e-2, warmup_steps=5).build()
    optimizer = create_optimizer(
        TINY, schedule, b1=0.9, b2=0.95, eps=EPS, weight_decay=0.1, clip_norm=1.0
    )
    sharding = Sharding(create_mesh(axes))
    options = StepOptions(guard=GuardOptions(spike_sigmas=9.0, spike_window=4), **options)
    return Trainer(TINY, optimizer, schedule, sharding, SOURCES, options)


@functools.cache
def random_params():
    return jax.device_get(init_params(TINY, seed=0))


def first_state(trainer, seed):
    """A run's first state. Other seeds have other numbers, of one program that makes them."""
    params = jax.tree.map(lambda x: x * np.float32(1 + 0.1 * seed), random_params())
    return trainer.init(seed, params)


def alone(trainer, seed, first, steps):
    """A run's state and metrics after `steps` steps on batches that begin with `first`."""
    state = first_state(trainer, seed)
    for step in range(steps):
        batch = jax.device_put(random_batch(first + step), trainer.batch_sharding)
        state, metrics = trainer.step(state, batch)
    return state, metrics


def host_batch(program, lane, number):
    rows = program.rows(lane, SHAPE)
    return LaneBatch(jax.tree.map(lambda x: x[rows], random_batch(number)), rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "axes", "options"),
    [
        ("vmap", {"data": 2, "fsdp": 2, "tensor": 2}, {"accumulation_steps": 2}),
        ("slices", {"data": 4, "context": 2}, {"remat": "minimal", "accumulation_steps": 2}),
    ],
)
def test_each_lane_is_a_run_alone(parallel, axes, options):
    """Lanes at other steps; one has no batch, then a state that is not finite, and then ends."""
    trainer = trainer_on(axes, **options)
    program = LaneStep(trainer, 4, parallel)
    stack = program.empty()
    for lane in (0, 1, 3):
        stack = program.put(stack, lane, first_state(trainer, lane))
    # Lane 3 diverges; lane 2 comes a step later.
    broken = program.take(stack, 3, "params")
    broken = jax.tree.map(lambda x: x * np.nan, broken)
    stack = program.put(stack, 3, first_state(trainer, 3)._replace(params=broken))
    for step in range(3):
        batches = [host_batch(program, lane, 10 * lane + step) for lane in range(4)]
        if step == 0:
            batches[2] = None
        if step == 1:
            stack = program.put(stack, 2, first_state(trainer, 2))
            batches[2] = host_batch(program, 2, 20)
        if step == 2:
            batches[2] = host_batch(program, 2, 21)
        stack, metrics = program.step(stack, program.join_batches(batches, SHAPE))
    for lane, steps in ((0, 3), (1, 3), (2, 2)):
        state, expected = alone(trainer, lane, 10 * lane, steps)
        found = LaneState(program, lambda: stack, lane)
        assert int(found.step) == steps
        start = jax.tree.leaves(first_state(trainer, lane).params)
        leaves = zip(
            jax.tree.leaves(found.params), jax.tree.leaves(state.params), start, strict=True
        )
        for leaf, want, before in leaves:
            assert leaf.sharding == want.sharding
            # Sums in another order.
            np.testing.assert_allclose(leaf, want, atol=1e-5, err_msg=f"lane {lane}")
            assert np.abs(np.asarray(want) - before).max() > 1e-3
        read = jax.device_get(LaneMetrics(metrics, lane))
        np.testing.assert_allclose(read.loss_sums, expected.loss_sums, rtol=1e-5)
        np.testing.assert_allclose(read.grad_norm, expected.grad_norm, rtol=1e-4)
        assert read.learning_rate == np.float32(expected.learning_rate)
        assert found.meta()["guard"]["seen"] == steps
    assert jax.device_get(LaneMetrics(metrics, 3)).skipped


def test_lanes_take_whole_ranks_of_the_mesh():
    whole = Sharding(create_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    found = lane_sharding(whole, 4).mesh
    assert dict(found.shape)["lane"] == 4 and found.shape["tensor"] == 2
    assert found.devices.flatten().tolist() == whole.mesh.devices.flatten().tolist()
    for lanes in (3, 8):
        with pytest.raises(ValueError, match=f"{lanes} lanes do not divide the mesh"):
            lane_sharding(whole, lanes)
