"""One training step: a jitted function of (state, batch), sharded by the rules of the mesh."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from marco_jax.model.layout import zigzag
from marco_jax.model.lora import (
    AdapterMatrix,
    adapter_table,
    init_adapters,
    merge,
)
from marco_jax.model.mesh import Sharding, parameter_shardings
from marco_jax.model.parameters import Parameter, Params, parameter_table, unflatten
from marco_jax.model.qwen2 import abstract_params, init_params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.objectives.losses import Sums
from marco_jax.training.device_step import DeviceStep
from marco_jax.training.optimizer import optimizer_shardings
from marco_jax.training.state import Batch, Guard, StepMetrics, StepOptions, TrainState


class Trainer:
    """The compiled step, the sharding of its state, and the first state."""

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
        self._rows = {row.path: row for row in self._trained_rows()}
        self._device = DeviceStep(config, sharding, num_sources, options, self._rows)
        params = unflatten(
            {path: sharding.named(*row.logical_axes) for path, row in self._rows.items()}
        )
        moments = optimizer_shardings(optimizer, self._abstract_trained(), params, sharding.named())
        self.state_shardings = TrainState(
            sharding.named(),
            params,
            moments,
            Guard(*[sharding.named()] * len(Guard._fields)),
            parameter_shardings(config, sharding) if options.is_frozen else None,
        )
        self.batch_sharding = sharding.named("batch", "length")
        self.step = jax.jit(
            self.update,
            in_shardings=(self.state_shardings, self.batch_sharding),
            out_shardings=(self.state_shardings, sharding.named()),
            donate_argnums=0,
            compiler_options=dict(options.compiler_options),
        )
        self._target_logps = jax.jit(self._target_logps_once, out_shardings=self.batch_sharding)

    @property
    def frozen_dtype(self) -> jnp.dtype:
        """The dtype of frozen parameters: `lora.base_dtype`, or that of the computation."""
        lora = self.options.lora
        return jnp.dtype(self.options.dtype if lora is None else lora.base_dtype)

    def init(self, seed: int, params: Params | None = None, *, donate: bool = False) -> TrainState:
        """The first state: random parameters, or given ones sharded over the mesh.

        With adapters, the parameters become the frozen base, and `seed` initialises the adapters.

        Args:
            seed: of what is random.
            params: of the model, any dtype.
            donate: `params` are sharded already and may be overwritten, so that there is one copy.
        """
        if params is None:
            params, donate = init_params(self.config, seed, self.sharding), True
        adapts = self.options.lora is not None
        frozen = self.freeze(params, donate=donate and adapts)
        trained = init_adapters(self.config, self.options.lora, seed) if adapts else params
        start = jax.jit(
            lambda params: TrainState(
                jnp.int32(0), params, self.optimizer.init(params), self.options.guard.init()
            ),
            out_shardings=self.state_shardings._replace(frozen=None),
            donate_argnums=(0,) if donate and not adapts else (),
        )
        state = start(jax.device_put(trained, self.state_shardings.params))
        return state._replace(frozen=frozen)

    def freeze(self, params: Params, *, donate: bool = False) -> Params | None:
        """The `frozen` part of a state, from the parameters that a run starts from."""
        if not self.options.is_frozen:
            return None
        dtype = self.frozen_dtype
        same = all(leaf.dtype == dtype for leaf in jax.tree.leaves(params))
        copy = jax.jit(
            lambda params: jax.tree.map(lambda x: x.astype(dtype), params),
            out_shardings=self.state_shardings.frozen,
            donate_argnums=(0,) if donate and same else (),
        )
        return copy(jax.device_put(params, self.state_shardings.frozen))

    def model_params(self, state: TrainState) -> Params:
        """The model parameters of a state; adapters are merged into their base."""
        lora = self.options.lora
        if lora is None:
            return state.params
        merged = jax.jit(
            functools.partial(merge, self.config, lora),
            out_shardings=self.state_shardings.frozen,
        )
        return merged(state.frozen, state.params)

    def forget_losses(self, state: TrainState) -> TrainState:
        """The state without past losses, by which spikes are judged: a new mixture has others."""
        if not self.options.guard.window:
            return state

        def forget(guard: Guard) -> Guard:
            return self.options.guard.init()._replace(skipped=guard.skipped)

        fresh = jax.jit(forget, out_shardings=self.state_shardings.guard)(state.guard)
        return state._replace(guard=fresh)

    def pass_over(self, state: TrainState, steps: int) -> TrainState:
        """The state as if the next `steps` steps had been skipped; donates `state`."""

        def passed(state: TrainState) -> TrainState:
            guard = state.guard._replace(skipped=state.guard.skipped + steps)
            return state._replace(step=state.step + steps, guard=guard)

        return jax.jit(passed, out_shardings=self.state_shardings, donate_argnums=0)(state)

    def abstract_state(self) -> TrainState:
        """ShapeDtypeStructs of a state with shardings, to restore a checkpoint into."""
        params = self._abstract_trained()
        frozen = None
        if self.options.is_frozen:
            frozen = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, self.frozen_dtype),
                abstract_params(self.config),
            )
        state = TrainState(
            jax.ShapeDtypeStruct((), jnp.int32),
            params,
            jax.eval_shape(self.optimizer.init, params),
            jax.eval_shape(self.options.guard.init),
            frozen,
        )
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            self.state_shardings,
        )

    def abstract_batch(self, rows: int, length: int) -> Batch:
        """ShapeDtypeStruct of a global batch of [rows, length] with its sharding."""
        dtypes = Batch(*(jnp.int32,) * 6)._replace(loss_weights=jnp.float32)
        if self.options.preference is not None:
            dtypes = dtypes._replace(reference=jnp.float32)
        if self.options.policy is not None:
            dtypes = dtypes._replace(advantages=jnp.float32)
            if self.options.policy.off_policy:
                dtypes = dtypes._replace(behaviour=jnp.float32)
        return jax.tree.map(
            lambda dtype: jax.ShapeDtypeStruct((rows, length), dtype, sharding=self.batch_sharding),
            dtypes,
        )

    def gradients(
        self, params: Params, batch: Batch, frozen: Params | None = None
    ) -> tuple[Sums, Params]:
        """Sums over a global batch by source, and gradients of what trains.

        The gradients are of the sum of losses over target tokens, or over pairs. Gradients of the
        layers' matrices keep the dtype of the computation if there is one microbatch; all others
        are float32.
        """
        preference, sft = self.options.preference, jnp.float32(0)
        if preference is not None and preference.sft_weight:
            chosen = batch.segment_ids % 2 == 1
            pairs = (chosen & (batch.positions == 0)).sum()
            tokens = jnp.maximum((batch.loss_weights * chosen).sum(), 1.0)
            sft = preference.sft_weight * pairs / tokens
        ranks = self.sharding.ways("length")
        batch = jax.tree.map(lambda x: zigzag(x, ranks), batch)
        specs, frozen_specs = self._specs()
        whole = jax.sharding.PartitionSpec()
        return jax.shard_map(
            self._device.gradients,
            mesh=self.sharding.mesh,
            in_specs=(specs, self.batch_sharding.spec, frozen_specs, whole, whole),
            out_specs=(whole, specs),
            # `_complete` adds up the gradients of replicated arrays.
            check_vma=False,
        )(params, batch, frozen, sft, self._filled_parts(batch))

    def target_logps(self, params: Params, batch: Batch, frozen: Params | None = None) -> jax.Array:
        """Log-probabilities of a global batch's target tokens as the step computes them, jitted.

        Returns:
            float32 [rows, length], sharded as the batch.
        """
        return self._target_logps(params, batch, frozen)

    def _target_logps_once(self, params: Params, batch: Batch, frozen: Params | None) -> jax.Array:
        ranks, length = self.sharding.ways("length"), batch.tokens.shape[1]
        order = zigzag(jnp.arange(length)[None], ranks)[0]
        specs, frozen_specs = self._specs()
        found = jax.shard_map(
            self._device.target_logps,
            mesh=self.sharding.mesh,
            in_specs=(specs, self.batch_sharding.spec, frozen_specs),
            out_specs=self.batch_sharding.spec,
            check_vma=False,
        )(params, jax.tree.map(lambda x: zigzag(x, ranks), batch), frozen)
        return found[:, jnp.argsort(order)]

    def _specs(self) -> tuple[Params, Params | None]:
        """PartitionSpecs of what trains and of what is frozen."""
        shardings = self.state_shardings
        return tuple(
            jax.tree.map(lambda sharding: sharding.spec, tree)
            for tree in (shardings.params, shardings.frozen)
        )

    def _filled_parts(self, batch: Batch) -> jax.Array:
        """Microbatches up to the last that has a token on any device, int32 scalar."""
        micro = self.options.accumulation_steps
        filled = (batch.segment_ids > 0).any(1).reshape(self.sharding.ways("batch"), micro, -1)
        return jnp.max(jnp.where(filled.any((0, 2)), jnp.arange(1, micro + 1), 0)).astype(jnp.int32)

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """The state after a step on a global batch, and its metrics; `step` is this, compiled."""
        sums, grads = self.gradients(state.params, batch, state.frozen)
        count = jnp.maximum(sums.loss_counts.sum(), 1.0)
        grads = jax.tree.map(lambda grad: grad.astype(jnp.float32) / count, grads)
        norm = optax.tree.norm(grads)
        skip, guard = self.options.guard.judge(state.guard, sums.loss_sums.sum() / count, norm)
        updates, moments = self.optimizer.update(grads, state.optimizer, state.params)
        params, moments = jax.tree.map(
            lambda new, old: jnp.where(skip, old, new),
            (optax.apply_updates(state.params, updates), moments),
            (state.params, state.optimizer),
        )
        # The optimizer has counted the steps that were not skipped, and its schedule with it.
        rate = jnp.asarray(self.schedule(state.step - state.guard.skipped), jnp.float32)
        filled = (batch.segment_ids > 0).sum(dtype=jnp.float32)
        metrics = StepMetrics(*sums, filled, norm, rate, skip, guard.skipped)
        return TrainState(state.step + 1, params, moments, guard, state.frozen), metrics

    def _trained_rows(self) -> Sequence[Parameter | AdapterMatrix]:
        """The rows of the parameter table that train."""
        lora = self.options.lora
        return parameter_table(self.config) if lora is None else adapter_table(self.config, lora)

    def _abstract_trained(self) -> Params:
        return unflatten(
            {
                path: jax.ShapeDtypeStruct(row.shape(self.config), jnp.float32)
                for path, row in self._rows.items()
            }
        )
