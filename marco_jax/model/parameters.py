"""The table of a model's parameters: path, Hugging Face name, logical axes, layout.

Initialisation, sharding, weight decay, import and export all read this table. Layers are stacked:
an array under `layers/` has a leading axis [num_hidden_layers].
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from marco_jax.model.qwen2_config import Qwen2Config

Params = dict[str, Any]

# Rows and columns of a tile; the tile that is read and its copy fit a first-level cache together.
_TILE = 64


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of the model: a row of the table.

    `axes` are the logical axes of one layer's array (mesh.py maps them to mesh axes).
    `inputs` is the number of leading axes that are contracted with the activations: Hugging Face
    stores a linear weight as a matrix [outputs, inputs], the transpose of ours. 0 means that both
    store the same array (up to flattening). `needs` names the field of the config without which a
    model does not have the parameter.
    """

    path: str
    huggingface: str
    axes: tuple[str, ...]
    inputs: int = 0
    init: str = "normal"
    needs: str | None = None

    @property
    def stacked(self) -> bool:
        """Whether the array holds all layers, on a leading axis."""
        return self.path.startswith("layers/")

    @property
    def logical_axes(self) -> tuple[str, ...]:
        """Logical axes of the stored array, the layer axis included."""
        return ("layers", *self.axes) if self.stacked else self.axes

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to matrices, not to norms and biases."""
        return self.init == "normal"

    def layer_shape(self, config: Qwen2Config) -> tuple[int, ...]:
        """Shape of one layer's array."""
        sizes = axis_sizes(config)
        return tuple(sizes[axis] for axis in self.axes)

    def shape(self, config: Qwen2Config) -> tuple[int, ...]:
        """Shape of the stored array, the layer axis included."""
        layers = (config.num_hidden_layers,) if self.stacked else ()
        return (*layers, *self.layer_shape(config))

    def huggingface_shape(self, config: Qwen2Config) -> tuple[int, ...]:
        """Shape of one layer's array in a Hugging Face checkpoint."""
        shape = self.layer_shape(config)
        if self.inputs:
            return (math.prod(shape[self.inputs :]), math.prod(shape[: self.inputs]))
        return (math.prod(shape),) if self.init == "zeros" else shape

    def huggingface_names(self, config: Qwen2Config) -> list[str]:
        """Names in a Hugging Face checkpoint: one per layer for a stacked array, else one."""
        if not self.stacked:
            return [self.huggingface]
        return [self.huggingface.format(i) for i in range(config.num_hidden_layers)]

    def from_huggingface(self, array: np.ndarray, config: Qwen2Config) -> np.ndarray:
        """Converts one layer's array from its Hugging Face layout; a view where possible."""
        return (array.T if self.inputs else array).reshape(self.layer_shape(config))

    def to_huggingface(self, array: np.ndarray, config: Qwen2Config) -> np.ndarray:
        """Converts one layer's array to its Hugging Face layout: inverts `from_huggingface`."""
        if not self.inputs:
            return array.reshape(self.huggingface_shape(config))
        outputs, inputs = self.huggingface_shape(config)
        return array.reshape(inputs, outputs).T


_LAYER = "model.layers.{}."
_TABLE = (
    Parameter("embed_tokens/embedding", "model.embed_tokens.weight", ("vocab", "embed")),
    Parameter(
        "layers/input_layernorm/scale", _LAYER + "input_layernorm.weight", ("norm",), init="ones"
    ),
    Parameter(
        "layers/self_attn/q_proj/kernel",
        _LAYER + "self_attn.q_proj.weight",
        ("embed", "heads", "head_dim"),
        inputs=1,
    ),
    Parameter(
        "layers/self_attn/q_proj/bias",
        _LAYER + "self_attn.q_proj.bias",
        ("heads", "head_dim"),
        init="zeros",
        needs="qkv_bias",
    ),
    Parameter(
        "layers/self_attn/k_proj/kernel",
        _LAYER + "self_attn.k_proj.weight",
        ("embed", "kv_heads", "head_dim"),
        inputs=1,
    ),
    Parameter(
        "layers/self_attn/k_proj/bias",
        _LAYER + "self_attn.k_proj.bias",
        ("kv_heads", "head_dim"),
        init="zeros",
        needs="qkv_bias",
    ),
    Parameter(
        "layers/self_attn/v_proj/kernel",
        _LAYER + "self_attn.v_proj.weight",
        ("embed", "kv_heads", "head_dim"),
        inputs=1,
    ),
    Parameter(
        "layers/self_attn/v_proj/bias",
        _LAYER + "self_attn.v_proj.bias",
        ("kv_heads", "head_dim"),
        init="zeros",
        needs="qkv_bias",
    ),
    Parameter(
        "layers/self_attn/q_norm/scale",
        _LAYER + "self_attn.q_norm.weight",
        ("head_dim",),
        init="ones",
        needs="qk_norm",
    ),
    Parameter(
        "layers/self_attn/k_norm/scale",
        _LAYER + "self_attn.k_norm.weight",
        ("head_dim",),
        init="ones",
        needs="qk_norm",
    ),
    Parameter(
        "layers/self_attn/o_proj/kernel",
        _LAYER + "self_attn.o_proj.weight",
        ("heads", "head_dim", "embed"),
        inputs=2,
    ),
    Parameter(
        "layers/post_attention_layernorm/scale",
        _LAYER + "post_attention_layernorm.weight",
        ("norm",),
        init="ones",
    ),
    Parameter(
        "layers/mlp/gate_proj/kernel", _LAYER + "mlp.gate_proj.weight", ("embed", "mlp"), inputs=1
    ),
    Parameter(
        "layers/mlp/up_proj/kernel", _LAYER + "mlp.up_proj.weight", ("embed", "mlp"), inputs=1
    ),
    Parameter(
        "layers/mlp/down_proj/kernel", _LAYER + "mlp.down_proj.weight", ("mlp", "embed"), inputs=1
    ),
    Parameter("norm/scale", "model.norm.weight", ("norm",), init="ones"),
    Parameter("lm_head/embedding", "lm_head.weight", ("vocab", "embed"), needs="separate_head"),
)


def contiguous(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns an array in C order and in `dtype`, copied only if needed.

    A matrix in Fortran order is copied in tiles: row by row the copy would miss the cache at every
    value, in tiles it is six times as fast.
    """
    if array.ndim != 2 or array.flags.c_contiguous or not array.T.flags.c_contiguous:
        return np.ascontiguousarray(array, dtype)
    out = np.empty(array.shape, dtype)
    for i in range(0, array.shape[0], _TILE):
        for j in range(0, array.shape[1], _TILE):
            tile = slice(i, i + _TILE), slice(j, j + _TILE)
            out[tile] = array[tile]
    return out


def axis_sizes(config: Qwen2Config) -> dict[str, int]:
    """Length of every logical parameter axis."""
    return {
        "vocab": config.vocab_size,
        "embed": config.hidden_size,
        "norm": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "mlp": config.intermediate_size,
        "layers": config.num_hidden_layers,
    }


def parameter_table(config: Qwen2Config) -> tuple[Parameter, ...]:
    """The parameters of a model of this config, in the order of Hugging Face checkpoints."""
    return tuple(row for row in _TABLE if row.needs is None or getattr(config, row.needs))


def unflatten(flat: dict[str, Any]) -> Params:
    """Converts paths to a nested dict: {"a/b": x} -> {"a": {"b": x}}."""
    tree: Params = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def flatten(tree: Params, prefix: str = "") -> dict[str, Any]:
    """Converts a nested dict to paths: {"a": {"b": x}} -> {"a/b": x}; inverts `unflatten`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat.update(flatten(value, path + "/") if isinstance(value, dict) else {path: value})
    return flat


def parameter_tree(config: Qwen2Config, function: Any) -> Params:
    """A tree shaped like the parameters whose leaves are `function(row)`."""
    return unflatten({row.path: function(row) for row in parameter_table(config)})
