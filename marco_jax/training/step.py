"""One training step: a jitted function of (state, batch), sharded by the rules of the mesh."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from marco_jax.model.attention import choose_attention
from marco_jax.model.config import Qwen2Config
from marco_jax.model.layout import Manual, zigzag
from marco_jax.model.mesh import Sharding, parameter_shardings
from marco_jax.model.parameters import Params, flatten, parameter_table, unflatten
from marco_jax.model.qwen2 import abstract_params, bind, init_params
from marco_jax.training.guard import Guard, GuardOptions
from marco_jax.training.losses import LossOptions, cross_entropy
from marco_jax.training.optimizer import optimizer_shardings


class TrainState(NamedTuple):
    """Everything that a step changes. `step` counts finished steps, skipped ones included."""

    step: jax.Array
    params: Params
    optimizer: optax.OptState
    guard: Guard


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

    loss_sums, token_counts: float32 [sources]. grad_norm: before clipping. skipped: boolean, the
    update was left out. skipped_steps: int32, so far in the run.
    """

    loss_sums: jax.Array
    token_counts: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array
    skipped: jax.Array
    skipped_steps: jax.Array


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step computes; but for `guard`, none of it changes the value beyond rounding."""

    dtype: Any = jnp.float32
    remat: str = "none"
    attention: str = "auto"
    accumulation_steps: int = 1
    loss: LossOptions = LossOptions()
    guard: GuardOptions = GuardOptions()


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
        self.state_shardings = TrainState(
            sharding.named(), params, moments, Guard(*[sharding.named()] * len(Guard._fields))
        )
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
            lambda params: TrainState(
                jnp.int32(0), params, self.optimizer.init(params), self.options.guard.init()
            ),
            out_shardings=self.state_shardings,
        )
        return start(jax.device_put(params, self.state_shardings.params))

    def forget_losses(self, state: TrainState) -> TrainState:
        """The state without the losses that spikes are measured by: a new mixture has its own."""
        if not self.options.guard.window:
            return state

        def forget(guard: Guard) -> Guard:
            return self.options.guard.init()._replace(skipped=guard.skipped)

        fresh = jax.jit(forget, out_shardings=self.state_shardings.guard)(state.guard)
        return state._replace(guard=fresh)

    def pass_over(self, state: TrainState, steps: int) -> TrainState:
        """The state as if the next `steps` steps had been skipped; `state` is used up."""

        def passed(state: TrainState) -> TrainState:
            guard = state.guard._replace(skipped=state.guard.skipped + steps)
            return state._replace(step=state.step + steps, guard=guard)

        return jax.jit(passed, out_shardings=self.state_shardings, donate_argnums=0)(state)

    def abstract_state(self) -> TrainState:
        """ShapeDtypeStruct of a state with its shardings: what a checkpoint restores into."""
        params = abstract_params(self.config)
        state = TrainState(
            jax.ShapeDtypeStruct((), jnp.int32),
            params,
            jax.eval_shape(self.optimizer.init, params),
            jax.eval_shape(self.options.guard.init),
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

    def gradients(self, params: Params, batch: Batch) -> tuple[tuple, Params]:
        """Sums over a global batch: (loss sums, token counts) by source, and gradients.

        The loss that the gradients belong to is the sum over target tokens. Those of the layers'
        matrices, which arrive in the dtype of the computation, stay in it if there is one
        microbatch; all others are float32.
        """
        ranks = self.sharding.ways("length")
        batch = jax.tree.map(lambda x: zigzag(x, ranks), batch)
        specs = jax.tree.map(lambda sharding: sharding.spec, self.state_shardings.params)
        whole = jax.sharding.PartitionSpec()
        return jax.shard_map(
            self._device_gradients,
            mesh=self.sharding.mesh,
            in_specs=(specs, self.batch_sharding.spec),
            out_specs=((whole, whole), specs),
            # The gradient of a replicated array is what `_complete` makes of it.
            check_vma=False,
        )(params, batch)

    def _step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        sums, grads = self.gradients(state.params, batch)
        tokens = jnp.maximum(sums[1].sum(), 1.0)
        grads = jax.tree.map(lambda grad: grad.astype(jnp.float32) / tokens, grads)
        norm = optax.tree.norm(grads)
        skip, guard = self.options.guard.judge(state.guard, sums[0].sum() / tokens, norm)
        updates, moments = self.optimizer.update(grads, state.optimizer, state.params)
        params, moments = jax.tree.map(
            lambda new, old: jnp.where(skip, old, new),
            (optax.apply_updates(state.params, updates), moments),
            (state.params, state.optimizer),
        )
        # The optimizer has counted the steps that were not skipped, and its schedule with it.
        rate = jnp.asarray(self.schedule(state.step - state.guard.skipped), jnp.float32)
        metrics = StepMetrics(*sums, norm, rate, skip, guard.skipped)
        return TrainState(state.step + 1, params, moments, guard), metrics

    def _device_gradients(self, params: Params, batch: Batch) -> tuple[tuple, Params]:
        """What `gradients` is made of on one device: its rows and its shards."""
        layout = self.layout(batch)
        params = self._cast(params)
        gradient = jax.grad(functools.partial(self._loss_sum, layout), has_aux=True)
        micro = self.options.accumulation_steps
        if micro == 1:
            grads, sums = gradient(params, batch)
            return self._complete(sums, grads, layout)

        def add(carry: tuple, microbatch: Batch) -> tuple[tuple, None]:
            grads, sums = gradient(params, microbatch)
            return jax.tree.map(jnp.add, carry, (sums, grads)), None

        zeros = (jnp.zeros(self.num_sources), jnp.zeros(self.num_sources))
        start = (zeros, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params))
        parts = jax.tree.map(lambda x: x.reshape(micro, -1, x.shape[1]), batch)
        (sums, grads), _ = jax.lax.scan(add, start, parts)
        return self._complete(sums, grads, layout)

    def _cast(self, params: Params) -> Params:
        """The layers' matrices in the dtype of the computation, so that their gradients are too."""
        dtype = self.options.dtype
        return unflatten(
            {
                path: x.astype(dtype) if path.endswith("kernel") else x
                for path, x in flatten(params).items()
            }
        )

    def layout(self, batch: Batch) -> Manual:
        """How this step lies on the mesh, for a device's [rows, length]."""
        rows, length = batch.tokens.shape
        attention = choose_attention(
            self.options.attention,
            self.sharding.platform,
            self.options.dtype,
            length,
            self.sharding.ways("length"),
            self.sharding.mesh.devices.flat[0].device_kind,
        )
        tokens = rows * length // self.options.accumulation_steps
        axis = vocab_axis(self.config, self.sharding, tokens)
        return Manual(self.config, self.sharding, attention, axis)

    def _complete(self, sums: tuple, grads: Params, layout: Manual) -> tuple[tuple, Params]:
        """Adds up over the ranks what the backward pass has left apart."""

        def complete(path: str, grad: jax.Array) -> jax.Array:
            spec = self.sharding.spec(rows[path].logical_axes)
            reduced = {name for entry in spec if entry for name in entry}
            rest = tuple(name for name in layout.token_axes if name not in reduced)
            return jax.lax.psum(grad, rest) if rest else grad

        rows = {row.path: row for row in parameter_table(self.config)}
        grads = unflatten({path: complete(path, grad) for path, grad in flatten(grads).items()})
        if layout.token_axes:
            sums = jax.lax.psum(sums, layout.token_axes)
        return sums, grads

    def _loss_sum(self, layout: Manual, params: Params, batch: Batch) -> tuple[jax.Array, tuple]:
        model = bind(self.config, params)
        hidden, _ = model(
            batch.tokens,
            batch.positions,
            batch.segment_ids,
            dtype=self.options.dtype,
            remat=self.options.remat,
            layout=layout,
        )
        total, losses = cross_entropy(
            hidden, model.head, batch.targets, batch.loss_weights, self.options.loss, layout
        )
        sources = jax.nn.one_hot(batch.source_ids, self.num_sources)  # [batch, length, sources]
        loss_sums = jnp.einsum("bl,bls->s", losses * batch.loss_weights, sources)
        token_counts = jnp.einsum("bl,bls->s", batch.loss_weights, sources)
        return total, (loss_sums, token_counts)


def vocab_axis(config: Qwen2Config, sharding: Sharding, tokens: int) -> str | None:
    """The mesh axis to share the loss's vocabulary over, for `tokens` a device; None: no axis.

    Whichever puts less on the wire: exchanging the tokens' hidden states and their gradients within
    the axis, or gathering the words of all its ranks and scattering their gradient.
    """
    name, ways = "fsdp_minor", sharding.mesh.shape["fsdp_minor"]
    words = config.vocab_size // sharding.ways("vocab")
    if ways == 1 or words % ways:
        return None
    return name if tokens * (ways - 1) < words * (ways - 1) / ways else None
