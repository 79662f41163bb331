"""One training step: a jitted function of (state, batch), sharded by the rules of the mesh."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from marco_jax.model.config import Qwen2Config
from marco_jax.model.mesh import Sharding, parameter_shardings
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import abstract_params, bind, init_params
from marco_jax.training.losses import token_losses
from marco_jax.training.optimizer import optimizer_shardings


class TrainState(NamedTuple):
    """Everything that a step changes. `step` counts finished steps."""

    step: jax.Array
    params: Params
    optimizer: optax.OptState


class Batch(NamedTuple):
    """Packed rows; all arrays are [sequences, length]. Validity is carried, never inferred.

    tokens, targets, positions, segment_ids (0: padding), source_ids: int32. loss_weights: float32.
    """

    tokens: jax.Array
    targets: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    loss_weights: jax.Array
    source_ids: jax.Array


class StepMetrics(NamedTuple):
    """Sums over the global batch, and scalars of the update.

    loss_sums, token_counts: float32 [sources]. grad_norm: before clipping.
    """

    loss_sums: jax.Array
    token_counts: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step computes; none of it changes the value beyond rounding."""

    dtype: Any = jnp.float32
    remat: str = "none"
    accumulation_steps: int = 1
    loss_chunk_tokens: int = 0


class Trainer:
    """Holds the compiled step, the layout of its state, and how to make a first state."""

    def __init__(
        self,
        config: Qwen2Config,
        optimizer: optax.GradientTransformation,
        schedule: optax.Schedule,
        sharding: Sharding,
        num_sources: int,
        options: StepOptions,
    ) -> None:
        """Prepares the step; nothing compiles before the first batch."""
        self.config = config
        self.optimizer = optimizer
        self.schedule = schedule
        self.sharding = sharding
        self.num_sources = num_sources
        self.options = options
        params = parameter_shardings(config, sharding)
        moments = optimizer_shardings(optimizer, abstract_params(config), params, sharding.named())
        self.state_shardings = TrainState(sharding.named(), params, moments)
        self.batch_sharding = sharding.named("batch", "length")
        self.step = jax.jit(
            self._step,
            in_shardings=(self.state_shardings, self.batch_sharding),
            out_shardings=(self.state_shardings, sharding.named()),
            donate_argnums=0,
        )

    def init(self, seed: int, params: Params | None = None) -> TrainState:
        """The first state: random parameters, or a copy of given ones laid on the mesh."""
        if params is None:
            params = init_params(self.config, seed, self.sharding)
        start = jax.jit(
            lambda params: TrainState(jnp.int32(0), params, self.optimizer.init(params)),
            out_shardings=self.state_shardings,
        )
        return start(jax.device_put(params, self.state_shardings.params))

    def abstract_state(self) -> TrainState:
        """ShapeDtypeStruct of a state with its shardings: what a checkpoint restores into."""
        params = abstract_params(self.config)
        state = TrainState(
            jax.ShapeDtypeStruct((), jnp.int32),
            params,
            jax.eval_shape(self.optimizer.init, params),
        )
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            self.state_shardings,
        )

    def abstract_batch(self, rows: int, length: int) -> Batch:
        """ShapeDtypeStruct of a global batch of [rows, length] with its sharding."""
        batch = Batch(*(jnp.int32,) * len(Batch._fields))._replace(loss_weights=jnp.float32)
        return Batch(
            *(
                jax.ShapeDtypeStruct((rows, length), dtype, sharding=self.batch_sharding)
                for dtype in batch
            )
        )

    def _step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        sums, grads = self._accumulate(state.params, batch)
        tokens = jnp.maximum(sums[1].sum(), 1.0)
        grads = jax.tree.map(lambda grad: grad / tokens, grads)
        updates, moments = self.optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(
            *sums, optax.tree.norm(grads), jnp.asarray(self.schedule(state.step), jnp.float32)
        )
        return TrainState(state.step + 1, params, moments), metrics

    def _accumulate(self, params: Params, batch: Batch) -> tuple[tuple, Params]:
        """Sums of losses, counts and gradients over microbatches; divided nowhere."""
        gradient = jax.grad(self._loss_sum, has_aux=True)
        micro = self.options.accumulation_steps
        if micro == 1:
            grads, sums = gradient(params, batch)
            return sums, grads

        def split(x: jax.Array) -> jax.Array:
            # Every microbatch takes rows from every device.
            rows = jnp.swapaxes(x.reshape(x.shape[0] // micro, micro, *x.shape[1:]), 0, 1)
            return self.sharding.constrain(rows, None, "batch", "length")  # [micro, rows, length]

        def add(carry: tuple, microbatch: Batch) -> tuple[tuple, None]:
            grads, sums = gradient(params, microbatch)
            return jax.tree.map(jnp.add, carry, (sums, grads)), None

        zeros = (jnp.zeros(self.num_sources), jnp.zeros(self.num_sources))
        start = (zeros, jax.tree.map(jnp.zeros_like, params))
        return jax.lax.scan(add, start, jax.tree.map(split, batch))[0]

    def _loss_sum(self, params: Params, batch: Batch) -> tuple[jax.Array, tuple]:
        model = bind(self.config, params)
        hidden, _ = model(
            batch.tokens,
            batch.positions,
            batch.segment_ids,
            dtype=self.options.dtype,
            remat=self.options.remat,
            sharding=self.sharding,
        )
        losses = token_losses(
            model, hidden, batch.targets, chunk_tokens=self.options.loss_chunk_tokens
        )
        losses *= batch.loss_weights
        sources = jax.nn.one_hot(batch.source_ids, self.num_sources)  # [batch, length, sources]
        loss_sums = jnp.einsum("bl,bls->s", losses, sources)
        token_counts = jnp.einsum("bl,bls->s", batch.loss_weights, sources)
        return losses.sum(), (loss_sums, token_counts)
