"""The step on one device: gradients of its rows of the batch, by its shards of the parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from marco_jax.model.attention import choose_attention
from marco_jax.model.layout import Manual
from marco_jax.model.lora import AdapterMatrix, LoraOptions, with_adapters
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Parameter, Params, flatten, unflatten
from marco_jax.model.qwen2 import bind
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.objectives.losses import Sums, cross_entropy, token_losses, token_sums
from marco_jax.objectives.policy_gradient import policy_sums
from marco_jax.objectives.preferences import answers_of, pair_sums
from marco_jax.training.state import Batch, StepOptions


class DeviceStep:
    """What a device computes of a step, inside shard_map."""

    def __init__(
        self,
        config: Qwen2Config,
        sharding: Sharding,
        num_sources: int,
        options: StepOptions,
        rows: Mapping[str, Parameter | AdapterMatrix],
    ) -> None:
        """Takes what a Trainer has, and by path the rows of its parameter table that train."""
        self.config, self.sharding, self.num_sources = config, sharding, num_sources
        self.options, self._rows = options, rows

    def gradients(
        self, params: Params, batch: Batch, frozen: Params | None, sft: jax.Array, filled: jax.Array
    ) -> tuple[Sums, Params]:
        """`Trainer.gradients` on one device: its rows of the batch, its shards of the parameters.

        Sampled answers fill a batch as they happen to be long: microbatches from `filled` on, which
        are empty, are not computed.
        """
        layout = self.layout(batch)
        params, frozen = self._cast(params), frozen and self._cast(frozen)
        gradient = jax.grad(functools.partial(self._loss_sum, layout, frozen, sft), has_aux=True)
        micro = self.options.accumulation_steps
        if micro == 1:
            grads, sums = gradient(params, batch)
            return self._complete(sums, grads, layout)

        def add(carry: tuple, microbatch: Batch) -> tuple:
            grads, sums = gradient(params, microbatch)
            return jax.tree.map(jnp.add, carry, (sums, grads))

        zeros = Sums.zeros(self.num_sources, self.options.metric_names)
        start = (zeros, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params))
        parts = jax.tree.map(lambda x: x.reshape(micro, -1, x.shape[1]), batch)
        if self.options.policy is None or not self.options.skip_empty:
            (sums, grads), _ = jax.lax.scan(lambda *x: (add(*x), None), start, parts)
        else:
            sums, grads = jax.lax.fori_loop(
                0, filled, lambda n, x: add(x, jax.tree.map(lambda part: part[n], parts)), start
            )
        return self._complete(sums, grads, layout)

    def _cast(self, params: Params) -> Params:
        """Casts the layers' matrices to the dtype of the computation; so are their gradients."""
        dtype = self.options.dtype
        return unflatten(
            {
                path: x.astype(dtype) if path.endswith("kernel") else x
                for path, x in flatten(params).items()
            }
        )

    def layout(self, batch: Batch) -> Manual:
        """The layout of this step on the mesh, for a device's [rows, length]."""
        rows, length = batch.tokens.shape
        device = self.sharding.mesh.devices.flat[0]
        attention = choose_attention(
            self.options.attention,
            self.sharding.platform,
            self.options.dtype,
            length,
            self.sharding.ways("length"),
            device.device_kind,
            getattr(device, "compute_capability", ""),
        )
        tokens = rows * length // self.options.accumulation_steps
        axis = vocab_axis(self.config, self.sharding, tokens)
        return Manual(
            self.config,
            self.sharding,
            attention,
            axis,
            keep_gathered=self.options.keep_gathered,
            quantize=self.options.quantize,
        )

    def _complete(self, sums: Sums, grads: Params, layout: Manual) -> tuple[Sums, Params]:
        """Adds up over ranks the gradients and sums that the backward pass left per rank."""

        def complete(path: str, grad: jax.Array) -> jax.Array:
            spec = self.sharding.spec(self._rows[path].logical_axes)
            reduced = {name for entry in spec if entry for name in entry}
            rest = tuple(name for name in layout.token_axes if name not in reduced)
            return jax.lax.psum(grad, rest) if rest else grad

        grads = unflatten({path: complete(path, grad) for path, grad in flatten(grads).items()})
        if layout.token_axes:
            sums = jax.lax.psum(sums, layout.token_axes)
        return sums, grads

    def _loss_sum(
        self, layout: Manual, frozen: Params | None, sft: jax.Array, params: Params, batch: Batch
    ) -> tuple[jax.Array, Sums]:
        options, lora = self.options, self.options.lora
        trained = params if lora is None else with_adapters(frozen, params)
        loss = dataclasses.replace(options.loss, frozen_head=lora is not None)
        hidden, head = self._hidden(trained, batch, layout, lora)
        if options.policy is not None:
            logps = self._logps(hidden, head, batch, layout)
            before = None
            if options.policy.has_reference:
                hidden, head = self._hidden(frozen, batch, layout, None)
                before = jax.lax.stop_gradient(self._logps(hidden, head, batch, layout))
            return policy_sums(logps, before, batch, options.policy, self.num_sources, layout)
        if options.preference is None:
            total, losses = cross_entropy(
                hidden, head, batch.targets, batch.loss_weights, loss, layout
            )
            return total, token_sums(losses, batch, self.num_sources)
        losses = token_losses(hidden, head, batch.targets, loss, layout)
        answers = answers_of(losses, batch, options.preference, layout)
        if options.preference.is_live:
            hidden, head = jax.lax.stop_gradient(self._hidden(frozen, batch, layout, None))
            before = token_losses(hidden, head, batch.targets, loss, layout)
            before = answers_of(before, batch, options.preference, layout)
            answers = answers.compared_with(before.logp)
        return pair_sums(answers, options.preference, sft, self.num_sources, layout)

    def _logps(self, hidden: jax.Array, head: jax.Array, batch: Batch, layout: Manual) -> jax.Array:
        """Log-probabilities of target tokens [batch, length] at the temperature of sampling."""
        loss = dataclasses.replace(self.options.loss, frozen_head=self.options.lora is not None)
        hidden = hidden / self.options.policy.temperature
        return -token_losses(hidden, head, batch.targets, loss, layout)

    def _hidden(
        self, params: Params, batch: Batch, layout: Manual, lora: LoraOptions | None
    ) -> tuple[jax.Array, jax.Array]:
        """Last hidden states [batch, length, embed], and the output matrix."""
        model = bind(self.config, params, lora)
        hidden, _ = model(
            batch.tokens,
            batch.positions,
            batch.segment_ids,
            dtype=self.options.dtype,
            remat=self.options.remat,
            layout=layout,
        )
        return hidden, model.head

    def target_logps(self, params: Params, batch: Batch, frozen: Params | None) -> jax.Array:
        """`Trainer.target_logps` on one device, a microbatch after the other."""
        layout, micro = self.layout(batch), self.options.accumulation_steps
        params, frozen = self._cast(params), frozen and self._cast(frozen)
        trained = params if self.options.lora is None else with_adapters(frozen, params)

        def read(part: Batch) -> jax.Array:
            hidden, head = self._hidden(trained, part, layout, self.options.lora)
            return self._logps(hidden, head, part, layout)

        parts = jax.tree.map(lambda x: x.reshape(micro, -1, x.shape[1]), batch)
        return jax.lax.map(read, parts).reshape(batch.tokens.shape)


def vocab_axis(config: Qwen2Config, sharding: Sharding, tokens: int) -> str | None:
    """The mesh axis to split the loss's vocabulary over, for `tokens` per device; None: no axis.

    The cheaper of two exchanges is taken: the tokens' hidden states and their gradients within the
    axis, or the vocabulary rows of all its ranks and their gradient.
    """
    name, ways = "fsdp_minor", sharding.mesh.shape["fsdp_minor"]
    vocab = config.vocab_size // sharding.ways("vocab")
    if ways == 1 or vocab % ways:
        return None
    return name if tokens * (ways - 1) < vocab * (ways - 1) / ways else None
