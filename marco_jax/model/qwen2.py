"""Qwen2 and dense Qwen3 in Flax NNX: one definition for training, decoding, import and export.

Modules and parameters are named as in Hugging Face checkpoints (parameters.py). Public functions
take and return parameters as a nested dict of arrays: `init_params` creates it and `bind` makes a
model of it. Layers are stacked and scanned, so a program's size does not grow with their number.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from marco_jax.model.attention import ContextRank, attention
from marco_jax.model.layout import Layout, Plain
from marco_jax.model.lora import LoraOptions
from marco_jax.model.mesh import Sharding, parameter_shardings
from marco_jax.model.parameters import Params, axis_sizes, parameter_table, unflatten
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.model.remat import (
    ATTENDED,
    GATE,
    KEY,
    QUERY,
    RESIDUAL,
    UP,
    VALUE,
    named,
    rematerialize,
)
from marco_jax.model.rotary import Rotary

_PLAIN = Plain()


class Cache(Protocol):
    """Interface of a KV cache: a pytree with the keys and values of earlier tokens, all layers.

    Each layer returns the updated cache to the next one, so that XLA can update it in place.
    """

    def attend(
        self,
        layer: jax.Array | int,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        inputs: LayerInputs,
        attention: str,
    ) -> tuple[jax.Array, Cache]:
        """Attends from new tokens to a layer's cached tokens and to the new ones.

        Arrays are [batch, length, heads or kv_heads, head_dim], with rotary positions applied.
        `attention` is the implementation that the layout names.

        Returns:
            The attended values, shaped like `query`, and the cache with the new tokens.
        """
        ...


class LayerCache(NamedTuple):
    """The cache of all layers, with the number of the layer that uses it."""

    cache: Cache
    layer: jax.Array | int


class LayerInputs(NamedTuple):
    """Inputs of every layer besides the hidden states.

    positions and segment_ids are int [batch, length]; segment_ids is None where each row is one
    document (decoding). key_positions and key_segment_ids cover the whole row, also where the
    queries of a row are spread over context ranks.
    """

    positions: jax.Array
    segment_ids: jax.Array | None
    key_positions: jax.Array
    key_segment_ids: jax.Array | None
    rotary: Rotary
    context: ContextRank


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, size: int, config: Qwen2Config) -> None:
        self.scale = nnx.Param(jnp.ones((size,)))
        self.epsilon = config.rms_norm_eps

    def __call__(self, x: jax.Array, layout: Layout = _PLAIN) -> jax.Array:  # [..., size]
        # With a layout, x has the heads of one tensor rank: all ranks add to the scale's gradient.
        scale = layout.to_tensor_ranks(self.scale[...])
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.epsilon)
        return scale.astype(x.dtype) * x32.astype(x.dtype)


class Projection(nnx.Module):
    """A linear map between logical axes, with an optional bias.

    With `lora` the kernel is frozen, and has an adapter if it is one of the targets. A caller may
    pass the kernel, with its gradient ordered among others (`layout.leave_together`).
    """

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        config: Qwen2Config,
        rngs: nnx.Rngs,
        lora: LoraOptions | None,
        bias: bool = False,
    ) -> None:
        sizes = axis_sizes(config)
        shape = tuple(sizes[axis] for axis in (*inputs, *outputs))
        init = nnx.initializers.normal(config.initializer_range)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape[len(inputs) :])) if bias else None
        self.inputs, self.outputs = inputs, outputs
        self.frozen = lora is not None
        self.adapted = lora is not None and name in lora.targets
        if self.adapted:
            before, after = shape[: len(inputs)], shape[len(inputs) :]
            self.lora_a = nnx.Param(jnp.zeros((*before, lora.rank)))
            self.lora_b = nnx.Param(jnp.zeros((lora.rank, *after)))
            self.scale = lora.scale

    def __call__(
        self, x: jax.Array, layout: Layout, kernel: jax.Array | None = None
    ) -> jax.Array:  # [..., inputs] -> [..., outputs]
        axes = (*self.inputs, *self.outputs)
        kernel = layout.weight(self.kernel[...] if kernel is None else kernel, axes, x.dtype)
        y = layout.product(x, kernel, axes, len(self.inputs), frozen=self.frozen)
        if self.adapted:
            down = layout.adapter(self.lora_a[...], (*self.inputs, "rank"), x.dtype)
            up = layout.adapter(self.lora_b[...], ("rank", *self.outputs), x.dtype)
            low = jnp.tensordot(x, down, axes=len(self.inputs))  # [..., rank]
            y = y + self.scale * jnp.tensordot(low, up, axes=1)
        if self.bias is None:
            return y
        return y + layout.weight(self.bias[...], self.outputs, x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention, rotary positions, and biases on q, k, v or norms of q and k."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs, lora: LoraOptions | None) -> None:
        embed, heads, kv_heads = ("embed",), ("heads", "head_dim"), ("kv_heads", "head_dim")
        rest = (config, rngs, lora)
        self.q_proj = Projection("q_proj", embed, heads, *rest, bias=config.qkv_bias)
        self.k_proj = Projection("k_proj", embed, kv_heads, *rest, bias=config.qkv_bias)
        self.v_proj = Projection("v_proj", embed, kv_heads, *rest, bias=config.qkv_bias)
        self.o_proj = Projection("o_proj", heads, embed, *rest)
        self.q_norm = RMSNorm(config.head_dim, config) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config) if config.qk_norm else None

    def __call__(
        self, x: jax.Array, inputs: LayerInputs, cache: LayerCache | None, layout: Layout
    ) -> tuple[jax.Array, LayerCache | None]:
        x, rotate = layout.to_tensor_ranks(x), inputs.rotary.rotate
        query, key = self.q_proj(x, layout), self.k_proj(x, layout)  # [batch, length, heads, ...]
        value = named(self.v_proj(x, layout), VALUE)
        if self.q_norm is None:
            query, key = named(rotate(query), QUERY), named(rotate(key), KEY)
        else:
            # The backward pass of a norm reads its input: that is kept in place of the result.
            query = rotate(self.q_norm(named(query, QUERY), layout))
            key = rotate(self.k_norm(named(key, KEY), layout))
        if cache is not None:
            out, updated = cache.cache.attend(
                cache.layer, query, key, value, inputs, layout.attention
            )
            out = layout.from_tensor_ranks(self.o_proj(out, layout))
            return out, cache._replace(cache=updated)
        out = attention(
            query,
            layout.gather_length(key).astype(query.dtype),
            layout.gather_length(value).astype(query.dtype),
            query_positions=inputs.positions,
            key_positions=inputs.key_positions,
            query_segment_ids=inputs.segment_ids,
            key_segment_ids=inputs.key_segment_ids,
            implementation=layout.attention,
            context=inputs.context,
        )
        # All implementations but `xla` name their results themselves.
        out = named(out, ATTENDED) if layout.attention == "xla" else out
        return layout.from_tensor_ranks(self.o_proj(out, layout)), cache


class MLPKernels(NamedTuple):
    """The kernels of an MLP's projections."""

    gate: jax.Array
    up: jax.Array
    down: jax.Array


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs, lora: LoraOptions | None) -> None:
        embed, mlp = ("embed",), ("mlp",)
        self.gate_proj = Projection("gate_proj", embed, mlp, config, rngs, lora)
        self.up_proj = Projection("up_proj", embed, mlp, config, rngs, lora)
        self.down_proj = Projection("down_proj", mlp, embed, config, rngs, lora)

    def kernels(self) -> MLPKernels:
        """The parameters, whose gradients the caller may order among others."""
        return MLPKernels(*(p.kernel[...] for p in (self.gate_proj, self.up_proj, self.down_proj)))

    def __call__(self, x: jax.Array, layout: Layout, kernels: MLPKernels) -> jax.Array:
        """[batch, length, embed] -> the same; a device has shards of the kernels."""
        x = layout.to_tensor_ranks(x)
        gate = named(self.gate_proj(x, layout, kernels.gate), GATE)  # [batch, length, mlp]
        up = named(self.up_proj(x, layout, kernels.up), UP)
        down = self.down_proj(jax.nn.silu(gate) * up, layout, kernels.down)
        return layout.from_tensor_ranks(down)


class DecoderLayer(nnx.Module):
    """Pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs, lora: LoraOptions | None) -> None:
        self.input_layernorm = RMSNorm(config.hidden_size, config)
        self.self_attn = Attention(config, rngs, lora)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config)
        self.mlp = MLP(config, rngs, lora)

    def __call__(
        self, x: jax.Array, inputs: LayerInputs, cache: LayerCache | None, layout: Layout
    ) -> tuple[jax.Array, LayerCache | None]:
        normed, kernels = self.input_layernorm(x), self.mlp.kernels()
        trains = not self.mlp.down_proj.frozen
        if trains:
            normed, gate, up = layout.leave_together(normed, kernels.gate, kernels.up)
            kernels = kernels._replace(gate=gate, up=up)
        attended, cache = self.self_attn(normed, inputs, cache, layout)
        x = named(x + attended, RESIDUAL)
        normed = self.post_attention_layernorm(x)
        if trains:
            normed, down = layout.leave_together(normed, kernels.down)
            kernels = kernels._replace(down=down)
        return x + self.mlp(normed, layout, kernels), cache


class Embedding(nnx.Module):
    """A [vocab, embed] matrix: the table of input embeddings, or the output head."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.normal(config.initializer_range)
        shape = (config.vocab_size, config.hidden_size)
        self.embedding = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def attend(self, hidden: jax.Array) -> jax.Array:
        """Logits in float32: [..., embed] -> [..., vocab]."""
        table = self.embedding[...].astype(hidden.dtype)
        return jnp.einsum("...e,ve->...v", hidden, table, preferred_element_type=jnp.float32)


class Qwen2(nnx.Module):
    """The decoder: maps token ids to final hidden states; `logits` applies the head."""

    def __init__(
        self, config: Qwen2Config, rngs: nnx.Rngs, lora: LoraOptions | None = None
    ) -> None:
        self.config = config
        self.embed_tokens = Embedding(config, rngs)
        self.layers = _stack_layers(config, rngs, lora)
        self.norm = RMSNorm(config.hidden_size, config)
        self.lm_head = None if config.tie_word_embeddings else Embedding(config, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        cache: Cache | None = None,
        layers: Sequence[Params] | None = None,
        dtype: jnp.dtype = jnp.float32,
        remat: str = "none",
        layout: Layout = _PLAIN,
    ) -> tuple[jax.Array, Cache | None]:
        """Computes the final hidden states of tokens.

        Args:
            tokens: int32 [batch, length].
            positions: int32 [batch, length]; they restart with every packed document.
            segment_ids: int32 [batch, length], 0 for padding; None where a row is one document.
            cache: earlier keys and values, or None.
            layers: one tree of parameters per layer, used in place of the stacked ones: layers
                are then unrolled rather than scanned, which avoids copies out of the stack.
            dtype: of the computation; norms, softmax and rotary phases are always float32.
            remat: what layers keep for the backward pass, a name of remat.REMAT_POLICIES.
            layout: how arrays are sharded. With `Manual`, all inputs are this device's shards.

        Returns:
            hidden states after the last norm [batch, length, embed], and the updated cache.
        """
        x = layout.lookup(self.embed_tokens.embedding[...], tokens, dtype)
        inputs = self._layer_inputs(positions, segment_ids, layout)
        layer_definition, stacked = nnx.split(self.layers)

        def body(carry: tuple, layer: tuple) -> tuple[tuple, None]:
            (x, cache), (state, index) = carry, layer
            layer_cache = None if cache is None else LayerCache(cache, index)
            x, layer_cache = nnx.merge(layer_definition, state)(x, inputs, layer_cache, layout)
            return (x, layer_cache and layer_cache.cache), None

        if layers is not None:
            for index, layer in enumerate(layers):
                (x, cache), _ = body((x, cache), (nnx.State(layer), index))
            return self.norm(x), cache
        body = rematerialize(body, remat)
        indices = jnp.arange(self.config.num_hidden_layers)
        (x, cache), _ = jax.lax.scan(body, (x, cache), (stacked, indices))
        return self.norm(x), cache

    @property
    def head(self) -> jax.Array:
        """The output matrix [vocab, embed]; the embedding table if embeddings are tied."""
        return (self.lm_head or self.embed_tokens).embedding[...]

    def _layer_inputs(
        self, positions: jax.Array, segment_ids: jax.Array | None, layout: Layout
    ) -> LayerInputs:
        return LayerInputs(
            positions,
            segment_ids,
            layout.gather_length(positions),
            None if segment_ids is None else layout.gather_length(segment_ids),
            Rotary.at(positions, self.config),
            layout.context,
        )

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Float32 logits [..., vocab_size] of hidden states [..., embed]."""
        return (self.lm_head or self.embed_tokens).attend(hidden)


def _stack_layers(config: Qwen2Config, rngs: nnx.Rngs, lora: LoraOptions | None) -> DecoderLayer:
    @nnx.split_rngs(splits=config.num_hidden_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> DecoderLayer:
        return DecoderLayer(config, rngs, lora)

    return create(rngs)


@functools.cache
def _definition(config: Qwen2Config, lora: LoraOptions | None) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Qwen2(config, nnx.Rngs(0), lora)))[0]


def bind(config: Qwen2Config, params: Params, lora: LoraOptions | None = None) -> Qwen2:
    """A model that uses these parameters, without a copy.

    With `lora`, `params` holds the frozen parameters and the adapters (lora.with_adapters).
    """
    return nnx.merge(_definition(config, lora), nnx.State(params))


def init_params(config: Qwen2Config, seed: int, sharding: Sharding | None = None) -> Params:
    """Random float32 parameters: normal(initializer_range), zero biases, unit norms.

    The values depend on the seed alone, not on the mesh; each device creates its own shard.
    """

    def create(key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(Qwen2(config, nnx.Rngs(params=key)), nnx.Param))

    shardings = None if sharding is None else parameter_shardings(config, sharding)
    return jax.jit(create, out_shardings=shardings)(jax.random.key(seed))


def abstract_params(config: Qwen2Config, sharding: Sharding | None = None) -> Params:
    """A float32 ShapeDtypeStruct of every parameter, with its sharding if a mesh is given."""
    return unflatten(
        {
            row.path: jax.ShapeDtypeStruct(
                row.shape(config),
                jnp.float32,
                sharding=None if sharding is None else sharding.named(*row.logical_axes),
            )
            for row in parameter_table(config)
        }
    )
