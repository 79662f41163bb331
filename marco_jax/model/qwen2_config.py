"""The shape of a Qwen2 or dense Qwen3 model, read from and written to a published `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from marco_jax.model.config_json import ARCHITECTURES, Architecture, config_fields


@dataclasses.dataclass(frozen=True)
class Qwen2Config:
    """Sizes and constants of a decoder: Qwen2 or Qwen2.5 (arXiv 2407.10671), or a dense Qwen3.

    Qwen3 (arXiv 2505.09388, section 2) has norms of each head's query and key (`qk_norm`) where
    Qwen2 has biases (`qkv_bias`), and a `head_dim` that does not follow from the other sizes.

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
    qkv_bias: bool = True
    qk_norm: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not bool and not value > 0:
                raise ValueError(f"{field.name} is {value!r}: it must be above zero")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}: choose KV heads that divide it"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}: rotary embeddings need an even number")
        if self.qkv_bias == self.qk_norm:
            raise ValueError(
                f"qkv_bias and qk_norm are both {self.qk_norm}: set qkv_bias (Qwen2) or qk_norm "
                "(Qwen3), transformers has no class for other models"
            )

    @classmethod
    def from_huggingface(cls, fields: Mapping[str, Any]) -> Qwen2Config:
        """Converts the fields of a Hugging Face `config.json` of model_type qwen2 or qwen3.

        Reads both RoPE schemas: a top-level `rope_theta` (transformers 4) and
        `rope_parameters: {"rope_theta": ...}` (transformers 5).

        Raises:
            ValueError: another architecture, a field that is missing or of a wrong type, or an
                unsupported feature that changes the computation (RoPE scaling, sliding windows).
        """
        return cls(**config_fields(fields))

    def to_huggingface(self) -> dict[str, Any]:
        """Fields of a `config.json` that transformers 4 and 5 read the same way."""
        fields = dataclasses.asdict(self)
        del fields["qkv_bias"], fields["qk_norm"]
        # Published Qwen2 configs have no head_dim, and transformers derives it from
        # hidden_size // heads; it is written only where the two differ.
        derived = self.hidden_size // self.num_attention_heads
        if self.architecture.head_dim is None and self.head_dim == derived:
            del fields["head_dim"]
        if self.qk_norm:
            fields["attention_bias"] = self.qkv_bias
        return {
            "architectures": [self.architecture.causal_lm],
            "model_type": self.architecture.model_type,
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
    def architecture(self) -> Architecture:
        """The model's class in transformers."""
        return next(kind for kind in ARCHITECTURES if kind.qk_norm == self.qk_norm)

    @property
    def separate_head(self) -> bool:
        """Whether the output matrix is a parameter of its own."""
        return not self.tie_word_embeddings

    @property
    def num_parameters(self) -> int:
        """The number of parameters, with tied embeddings counted once."""
        heads = self.num_attention_heads + self.num_key_value_heads
        attention = 2 * self.hidden_size * self.head_dim * heads
        layer = attention + 3 * self.hidden_size * self.intermediate_size + self._layer_vectors
        embedding = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embedding + self.hidden_size

    @property
    def _layer_vectors(self) -> int:
        """The number of parameters of a layer's norms and biases."""
        heads = self.num_attention_heads + 2 * self.num_key_value_heads
        return 2 * self.hidden_size + self.head_dim * (heads * self.qkv_bias + 2 * self.qk_norm)

    def flops_per_token(self, length: int) -> float:
        """Model FLOPs of one training token: 6 N + 12 layers x length x heads x head_dim / 2.

        N is the number of parameters in matrix products: it includes the output head and excludes
        the embedding table. Causal attention counts half, and recomputation does not count.
        """
        embedding = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        vectors = self.num_hidden_layers * self._layer_vectors + self.hidden_size
        matmul = self.num_parameters - embedding - vectors
        heads = self.num_attention_heads * self.head_dim
        return 6.0 * matmul + 6.0 * self.num_hidden_layers * length * heads


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


def _qwen3(
    hidden: int, intermediate: int, layers: int, heads: int, *, tied: bool = False, **rest: Any
) -> Qwen2Config:
    """A dense Qwen3 (arXiv 2505.09388, Table 1)."""
    fields = {"num_key_value_heads": 8, "vocab_size": 151_936, "head_dim": 128} | rest
    return Qwen2Config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        tie_word_embeddings=tied,
        max_position_embeddings=40_960,
        qkv_bias=False,
        qk_norm=True,
        **fields,
    )


# The published checkpoints, with the values of their config.json (only 72B has eps 1e-5), and small
# shapes for development: `tiny` and `qwen3_tiny` for tests, `small` for CPU benchmarks.
PRESETS: dict[str, Qwen2Config] = {
    "qwen2_0_5b": _published(896, 4864, 24, 14, 2, 151_936, tie_word_embeddings=True),
    "qwen2_1_5b": _published(1536, 8960, 28, 12, 2, 151_936, tie_word_embeddings=True),
    "qwen2_7b": _published(3584, 18_944, 28, 28, 4, 152_064),
    "qwen2_72b": _published(8192, 29_568, 80, 64, 8, 152_064, rms_norm_eps=1e-5),
    "qwen3_0_6b": _qwen3(1024, 3072, 28, 16, tied=True),
    "qwen3_1_7b": _qwen3(2048, 6144, 28, 16, tied=True),
    "qwen3_4b": _qwen3(2560, 9728, 36, 32, tied=True),
    "qwen3_8b": _qwen3(4096, 12_288, 36, 32),
    "qwen3_14b": _qwen3(5120, 17_408, 40, 40),
    "qwen3_32b": _qwen3(5120, 25_600, 64, 64),
    "tiny": _published(64, 128, 2, 4, 2, 256, max_position_embeddings=2048),
    "qwen3_tiny": _qwen3(*(64, 128, 2, 4), num_key_value_heads=2, head_dim=32, vocab_size=256),
    "small": _published(512, 1408, 8, 8, 2, 32_000, max_position_embeddings=32_768),
}
