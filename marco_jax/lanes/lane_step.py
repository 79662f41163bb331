"""One training step of several runs of one shape: a compiled function of their stacked states.

A *lane* is one of the runs. The states of all lanes are stacked along a leading axis, and the
step of one run is mapped over it with `jax.vmap`. Either every device holds all lanes, and each
lane's batch is split over all devices ("vmap"); or the leading axis is itself split over groups of
devices ("slices"), and a group computes its lane alone, so that collectives stay inside the group.
In both cases a lane reads the same global batch, and has the same learning rate, as a run that has
all devices to itself. Lanes need not be at the same step: a state holds its own step counter.

The stack stays on the devices. `put` writes one lane's state into it and `take` reads one; both
mask the leading axis instead of slicing it, since XLA would gather an axis that is split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from marco_jax.model.mesh import LANE_AXIS, lane_sharding
from marco_jax.training.state import Batch, StepMetrics, TrainState
from marco_jax.training.step import Trainer

# How runs share the devices: `config.sweep.parallel`.
ALONE, VMAP, SLICES = PARALLEL = ("none", "vmap", "slices")


class LaneStep:
    """The compiled step of stacked states, and access to the lanes of a stack."""

    def __init__(self, trainer: Trainer, lanes: int, parallel: str, num_sources: int = 0) -> None:
        """Prepares the step; nothing compiles yet.

        Args:
            trainer: of one run on all devices, without frozen parameters.
            lanes: number of runs.
            parallel: "vmap" or "slices".
            num_sources: how many sources losses are summed by; by default the trainer's.

        Raises:
            ValueError: "slices", and the lanes do not divide the mesh, or a group of devices does
                not divide the model.
        """
        whole, self.lanes = trainer.sharding, lanes
        split = parallel == SLICES
        self.sharding = lane_sharding(whole, lanes) if split else whole
        self.num_sources = num_sources or trainer.num_sources
        self._one = Trainer(
            trainer.config,
            trainer.optimizer,
            trainer.schedule,
            self.sharding,
            self.num_sources,
            trainer.options,
        )
        self._axis = LANE_AXIS if split else None
        self.state_shardings = jax.tree.map(self._stacked, self._one.state_shardings)
        self.batch_sharding = self._stacked(self._one.batch_sharding)
        self.step = jax.jit(
            jax.vmap(self._one.update, spmd_axis_name=self._axis),
            in_shardings=(self.state_shardings, self.batch_sharding),
            out_shardings=(self.state_shardings, self._one.sharding.named()),
            donate_argnums=0,
            compiler_options=dict(trainer.options.compiler_options),
        )
        self._abstract = trainer.abstract_state()
        self._put = jax.jit(_put, out_shardings=self.state_shardings, donate_argnums=0)
        # By field of a state, compiled where it is first read.
        self._take = {
            name: jax.jit(_take, out_shardings=getattr(trainer.state_shardings, name))
            for name in TrainState._fields
        }

    def _stacked(self, sharding: NamedSharding) -> NamedSharding:
        return NamedSharding(self.sharding.mesh, PartitionSpec(self._axis, *sharding.spec))

    def abstract_state(self) -> TrainState:
        """ShapeDtypeStructs of a stack [lanes, ...] with shardings."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                (self.lanes, *leaf.shape), leaf.dtype, sharding=sharding
            ),
            self._abstract,
            self.state_shardings,
        )

    def abstract_batch(self, rows: int, length: int) -> Batch:
        """ShapeDtypeStructs of the lanes' global batches, [lanes, rows, length], with shardings."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (self.lanes, *leaf.shape), leaf.dtype, sharding=self.batch_sharding
            ),
            self._one.abstract_batch(rows, length),
        )

    def empty(self) -> TrainState:
        """A stack of zeros."""
        like = self.abstract_state()
        zeros = jax.jit(
            lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like),
            out_shardings=self.state_shardings,
        )
        return zeros()

    def put(self, stack: TrainState, lane: int, state: TrainState) -> TrainState:
        """The stack with one lane's state replaced; both arguments are used up."""
        stack = jax.block_until_ready(self._put(stack, np.int32(lane), state))
        # Now, not when the caller lets go of it: two copies of all lanes may not fit. On a CPU an
        # array may be the memory of a NumPy array, which must outlive the copy.
        jax.tree.map(lambda leaf: leaf.delete(), state)
        return stack

    def take(self, stack: TrainState, lane: int, field: str) -> Any:
        """A copy of one field of a lane's state, sharded as that of a run on all devices."""
        return self._take[field](getattr(stack, field), np.int32(lane))

    def rows(self, lane: int, shape: tuple[int, int]) -> slice:
        """The rows of a lane's global batch [rows, length] that this process's devices hold.

        A process that holds none of them gets one row, which is not used.
        """
        indices = self.batch_sharding.addressable_devices_indices_map((self.lanes, *shape))
        bounds = [
            index[1].indices(shape[0])[:2]
            for index in indices.values()
            if lane in range(*index[0].indices(self.lanes))
        ]
        bounds = bounds or [(0, 1)]
        return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))

    def join_batches(self, batches: Sequence[LaneBatch | None], shape: tuple[int, int]) -> Batch:
        """The lanes' batches as one [lanes, rows, length] on the mesh; zeros where a lane has none.

        Args:
            batches: by lane, the rows that `rows` has named.
            shape: of a lane's global batch.
        """
        whole = (self.lanes, *shape)
        like = next(batch.arrays for batch in batches if batch)

        def join(name: str) -> jax.Array:
            dtype = getattr(like, name).dtype

            def part(index: tuple[slice, ...]) -> np.ndarray:
                lanes = range(*index[0].indices(self.lanes))
                start, stop, _ = index[1].indices(shape[0])
                columns = len(range(*index[2].indices(shape[1])))
                out = np.zeros((len(lanes), stop - start, columns), dtype)
                for number, lane in enumerate(lanes):
                    if batch := batches[lane]:
                        first = batch.rows.start
                        rows = getattr(batch.arrays, name)[start - first : stop - first]
                        out[number] = rows[:, index[2]]
                return out

            return jax.make_array_from_callback(whole, self.batch_sharding, part)

        names = (name for name in Batch._fields if getattr(like, name) is not None)
        return Batch(**{name: join(name) for name in names})


@dataclasses.dataclass(frozen=True)
class LaneBatch:
    """Rows of a lane's global batch in this process's memory: `arrays` are NumPy's."""

    arrays: Batch
    rows: slice


class LaneState:
    """One lane's state after a step, as a TrainState whose fields are copied when they are read.

    The fields can be read until `forget`, before the lane's next step. `stack` returns the newest
    stack: the states of other lanes may be put into it meanwhile, and this uses up the one before.
    """

    def __init__(self, program: LaneStep, stack: Callable[[], TrainState], lane: int) -> None:
        self._source = (program, stack, lane)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_source":
            raise AttributeError(name)
        program, stack, lane = self._source
        if name in TrainState._fields:
            value = program.take(stack(), lane, name)
            setattr(self, name, value)
            return value
        return getattr(self.whole(), name)

    def whole(self) -> TrainState:
        """All fields."""
        return TrainState(*(getattr(self, name) for name in TrainState._fields))

    def forget(self) -> None:
        """Frees the copies; nothing can be read any more."""
        self.__dict__.clear()

    @property
    def arrays(self) -> dict[str, Any]:
        """The pytrees of a checkpoint, by name."""
        return {"params": self.params, "optimizer": self.optimizer}


@jax.tree_util.register_pytree_node_class
class LaneMetrics:
    """One lane's metrics of a step: a view of the metrics of all lanes.

    A pytree whose leaves are those of all lanes, so that `jax.device_get` copies them to the host
    once for all lanes. The attributes are those of StepMetrics.
    """

    def __init__(self, stacked: StepMetrics, lane: int) -> None:
        self._stacked, self._lane = stacked, lane

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return jax.tree.map(lambda leaf: leaf[self._lane], getattr(self._stacked, name))

    def tree_flatten(self) -> tuple[tuple[StepMetrics], int]:
        """The metrics of all lanes, and the number of this one."""
        return (self._stacked,), self._lane

    @classmethod
    def tree_unflatten(cls, lane: int, children: tuple[StepMetrics]) -> LaneMetrics:
        """The inverse of `tree_flatten`."""
        return cls(children[0], lane)


def _put(stack: TrainState, lane: jax.Array, state: TrainState) -> TrainState:
    def put(stacked: jax.Array, leaf: jax.Array) -> jax.Array:
        return jnp.where(_mask(stacked, lane), leaf[None], stacked)

    return jax.tree.map(put, stack, state)


def _take(stack: Any, lane: jax.Array) -> Any:
    def take(stacked: jax.Array) -> jax.Array:
        # Exact: all other terms are zeros.
        kept = jnp.where(_mask(stacked, lane), stacked, jnp.zeros_like(stacked))
        return kept.sum(axis=0, dtype=stacked.dtype)

    return jax.tree.map(take, stack)


def _mask(stacked: jax.Array, lane: jax.Array) -> jax.Array:
    """Boolean [lanes, 1, ...]: whether an entry is the lane's."""
    numbers = jax.lax.broadcasted_iota(jnp.int32, (stacked.shape[0], *(1,) * (stacked.ndim - 1)), 0)
    return numbers == lane
