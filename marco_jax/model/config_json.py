"""Reads the fields of a Hugging Face `config.json`, and refuses what the model cannot compute.

Absent fields have the defaults of `Qwen2Config` and `Qwen3Config` in transformers 4 and 5, which
agree. A field of a wrong type raises one line with the value as the file has it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A kind of model that transformers has a class for.

    `head_dim` is the default of its config.json; None: hidden_size // num_attention_heads.
    """

    model_type: str
    causal_lm: str
    qkv_bias: bool
    qk_norm: bool
    head_dim: int | None = None

    @property
    def family(self) -> str:
        """The models' name, such as "Qwen2"."""
        return self.causal_lm.removesuffix("ForCausalLM")


ARCHITECTURES = (
    Architecture("qwen2", "Qwen2ForCausalLM", qkv_bias=True, qk_norm=False),
    Architecture("qwen3", "Qwen3ForCausalLM", qkv_bias=False, qk_norm=True, head_dim=128),
)
_BY_TYPE = {architecture.model_type: architecture for architecture in ARCHITECTURES}


def config_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a config.json to the arguments of `Qwen2Config`.

    Raises:
        ValueError: another architecture, a field that is missing or of a wrong type, or a feature
            that changes the computation and is not supported; the message names the field.
    """
    architecture = _supported(fields)
    heads, hidden_size = _count(fields, "num_attention_heads"), _count(fields, "hidden_size")
    return {
        "vocab_size": _count(fields, "vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": _count(fields, "intermediate_size"),
        "num_hidden_layers": _count(fields, "num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": _kv_heads(fields, heads),
        "head_dim": _head_dim(fields, architecture, hidden_size, heads),
        "rms_norm_eps": _number(fields, "rms_norm_eps", 1e-6),
        "rope_theta": _rope_theta(fields),
        "tie_word_embeddings": _flag(fields, "tie_word_embeddings"),
        "max_position_embeddings": _count(fields, "max_position_embeddings", 32_768),
        "initializer_range": _number(fields, "initializer_range", 0.02),
        "qkv_bias": architecture.qkv_bias,
        "qk_norm": architecture.qk_norm,
    }


def _kv_heads(fields: Mapping[str, Any], heads: int) -> int:
    # transformers takes null for as many KV heads as query heads, and 32 where the field is absent.
    name = "num_key_value_heads"
    if name not in fields and heads % 32:
        raise ValueError(
            f"{name} is absent, which means 32, and num_attention_heads is {heads}: add {name}"
        )
    return heads if fields.get(name, 32) is None else _count(fields, name, 32)


def _head_dim(
    fields: Mapping[str, Any], architecture: Architecture, hidden_size: int, heads: int
) -> int:
    if architecture.head_dim or fields.get("head_dim") is not None:
        return _count(fields, "head_dim", architecture.head_dim)
    if heads > hidden_size:
        raise ValueError(
            f"num_attention_heads is {heads} and hidden_size {hidden_size}: state head_dim, or "
            "correct them"
        )
    return hidden_size // heads


def _supported(fields: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json without unsupported features."""
    model_type = fields.get("model_type")
    architecture = _BY_TYPE.get(model_type) if isinstance(model_type, str) else None
    if architecture is None:
        raise ValueError(
            f"model_type is {model_type!r}: only qwen2 (Qwen2 and Qwen2.5) and qwen3 (dense Qwen3) "
            "models are supported"
        )
    if _flag(fields, "use_sliding_window"):
        raise ValueError("use_sliding_window is true: set it to false, windows are not supported")
    layers = fields.get("layer_types") or []
    if not isinstance(layers, list) or any(kind != "full_attention" for kind in layers):
        raise ValueError(
            f"layer_types is {_shown(layers)}: give a model whose layers all have full_attention"
        )
    # transformers reads this field for Qwen3 alone; biases of a Qwen2 are always there.
    if architecture.qk_norm and _flag(fields, "attention_bias"):
        raise ValueError(
            "attention_bias is true: give a Qwen3 without biases, as all published ones are"
        )
    if fields.get("hidden_act", "silu") != "silu":
        raise ValueError(
            f"hidden_act is {_shown(fields['hidden_act'])}: {architecture.family} uses 'silu'"
        )
    _refuse_scaling(fields)
    return architecture


def _refuse_scaling(fields: Mapping[str, Any]) -> None:
    schemas = [_rope(fields, name) for name in ("rope_parameters", "rope_scaling")]
    kinds = [schema.get(key) for schema in schemas for key in ("rope_type", "type")]
    if "mrope" in kinds or any("mrope_section" in schema for schema in schemas):
        raise ValueError(
            "RoPE is of type 'mrope', the rotary positions of a vision-language model such as "
            "Qwen2-VL: give the directory of a text model"
        )
    for kind in kinds:
        if kind not in (None, "default"):
            raise ValueError(
                f"RoPE scaling is {kind!r}: remove it from config.json, contexts up to "
                "max_position_embeddings do not need it"
            )


def _rope(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A config's object of RoPE parameters; empty if it is absent or null."""
    schema = fields.get(name)
    if schema is None:
        return {}
    nested = isinstance(schema, dict) and any(isinstance(x, dict) for x in schema.values())
    if not isinstance(schema, dict) or nested:
        raise ValueError(
            f'{name} is {_shown(schema)}: write an object such as {{"rope_theta": 10000.0}}'
        )
    return schema


def _rope_theta(fields: Mapping[str, Any]) -> float:
    """The base of the rotary frequencies, in the schema of transformers 5 or 4."""
    # transformers 5 reads the older object instead of the newer one where a file has both.
    rope = _rope(fields, "rope_scaling") or _rope(fields, "rope_parameters")
    return _number(rope if "rope_theta" in rope else fields, "rope_theta", 10_000.0)


def _count(fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number above zero."""
    value = _given(fields, name, default)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {_shown(value)}: write a whole number of 1 or more")
    return value


def _number(fields: Mapping[str, Any], name: str, default: float) -> float:
    """A finite number above zero."""
    value = _given(fields, name, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {_shown(value)}: write a number above 0")
    return float(value)


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false; false if it is absent."""
    value = fields.get(name, False)
    if type(value) is not bool:
        raise ValueError(f"{name} is {_shown(value)}: write true or false")
    return value


def _given(fields: Mapping[str, Any], name: str, default: Any) -> Any:
    if name not in fields and default is None:
        raise ValueError(f"{name} is absent: give the config.json of a Qwen2 or Qwen3 model")
    return fields.get(name, default)


def _shown(value: Any) -> str:
    """A value as JSON has it, cut to one short line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
