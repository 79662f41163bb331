"""The shape of a Qwen2 model, read from and written to a published `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Qwen2Config:
    """Sizes and constants of a Qwen2 decoder (Qwen2 technical report, arXiv 2407.10671, Table 1).

    `vocab_size` is the number of rows of the embedding matrix. Published models have more rows
    than the tokenizer has tokens; the extra rows take part in the softmax, as in `transformers`.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 131_072
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "tie_word_embeddings" and not value > 0:
                raise ValueError(f"{field.name} is {value!r}: it must be above zero")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}: choose KV heads that divide it"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}: rotary embeddings need an even number")

    @classmethod
    def from_huggingface(cls, fields: Mapping[str, Any]) -> Qwen2Config:
        """Converts the fields of a Hugging Face `config.json` of model_type qwen2.

        Reads both RoPE schemas: a top-level `rope_theta` (transformers 4) and
        `rope_parameters: {"rope_theta": ...}` (transformers 5).

        Raises:
            ValueError: another architecture, a missing field, or an unsupported feature that
                changes the computation (RoPE scaling, sliding windows).
        """
        _refuse_unsupported(fields)
        heads = _required(fields, "num_attention_heads")
        hidden_size = _required(fields, "hidden_size")
        rope = fields.get("rope_parameters") or {}
        return cls(
            vocab_size=_required(fields, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=_required(fields, "intermediate_size"),
            num_hidden_layers=_required(fields, "num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=_required(fields, "num_key_value_heads"),
            head_dim=fields.get("head_dim") or hidden_size // heads,
            rms_norm_eps=float(_required(fields, "rms_norm_eps")),
            # The default of transformers where neither schema has the field.
            rope_theta=float(rope.get("rope_theta") or fields.get("rope_theta") or 10_000.0),
            tie_word_embeddings=bool(fields.get("tie_word_embeddings", False)),
            max_position_embeddings=fields.get("max_position_embeddings", 32_768),
            initializer_range=float(fields.get("initializer_range", 0.02)),
        )

    def to_huggingface(self) -> dict[str, Any]:
        """Fields of a `config.json` that transformers 4 and 5 read the same way."""
        fields = dataclasses.asdict(self)
        # Published Qwen2 configs have no head_dim, and transformers derives it from
        # hidden_size // heads; it is written only where the two differ.
        if self.head_dim == self.hidden_size // self.num_attention_heads:
            del fields["head_dim"]
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_cache": True,
            "use_sliding_window": False,
            "sliding_window": self.max_position_embeddings,
            "max_window_layers": self.num_hidden_layers,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            **fields,
        }

    @property
    def num_parameters(self) -> int:
        """The number of parameters, with tied embeddings counted once."""
        attention = self.hidden_size * self.head_dim * 2 * (
            self.num_attention_heads + self.num_key_value_heads
        ) + self.head_dim * (self.num_attention_heads + 2 * self.num_key_value_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embedding = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embedding + self.hidden_size

    def flops_per_token(self, length: int) -> float:
        """Model FLOPs of one training token: 6 N + 12 layers x length x heads x head_dim / 2.

        N is the number of parameters in matrix products: it includes the output head and excludes
        the embedding table. Causal attention counts half, and recomputation does not count.
        """
        norms_and_biases = self.num_hidden_layers * (
            2 * self.hidden_size
            + self.head_dim * (self.num_attention_heads + 2 * self.num_key_value_heads)
        )
        embedding = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        matmul = self.num_parameters - embedding - norms_and_biases - self.hidden_size
        heads = self.num_attention_heads * self.head_dim
        return 6.0 * matmul + 6.0 * self.num_hidden_layers * length * heads


def _required(fields: Mapping[str, Any], name: str) -> Any:
    if fields.get(name) is None:
        raise ValueError(f"config.json has no {name}: is this the directory of a Qwen2 model?")
    return fields[name]


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
    model_type = fields.get("model_type")
    if model_type != "qwen2":
        raise ValueError(
            f"model_type is {model_type!r}: only qwen2 (Qwen2 and Qwen2.5) models are supported"
        )
    if fields.get("use_sliding_window"):
        raise ValueError("use_sliding_window is true: set it to false, windows are not supported")
    rope = fields.get("rope_parameters") or {}
    scaling = fields.get("rope_scaling") or {}
    kinds = (schema.get(key) for schema in (rope, scaling) for key in ("rope_type", "type"))
    for kind in kinds:
        if kind not in (None, "default"):
            raise ValueError(
                f"RoPE scaling is {kind!r}: remove it from config.json, contexts up to "
                "max_position_embeddings do not need it"
            )
    if fields.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act is {fields['hidden_act']!r}: Qwen2 uses 'silu'")


def _published(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int, **rest: Any
) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        **rest,
    )


# The published base checkpoints, with the values of their config.json (only 72B has eps 1e-5), and
# small shapes for development: `tiny` for tests, `small` for CPU benchmarks.
PRESETS: dict[str, Qwen2Config] = {
    "qwen2_0_5b": _published(896, 4864, 24, 14, 2, 151_936, tie_word_embeddings=True),
    "qwen2_1_5b": _published(1536, 8960, 28, 12, 2, 151_936, tie_word_embeddings=True),
    "qwen2_7b": _published(3584, 18_944, 28, 28, 4, 152_064),
    "qwen2_72b": _published(8192, 29_568, 80, 64, 8, 152_064, rms_norm_eps=1e-5),
    "tiny": _published(64, 128, 2, 4, 2, 256, max_position_embeddings=2048),
    "small": _published(512, 1408, 8, 8, 2, 32_000, max_position_embeddings=32_768),
}
