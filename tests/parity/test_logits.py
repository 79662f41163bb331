"""Logits, gradients and greedy tokens against transformers, in float32.

`relative` is max |ours - theirs| / max |theirs|. The bounds are a few times what differing
summation order gives in float32 (about 1e-6 for these sizes).
"""

import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.model.qwen2 import bind
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.model.rotary import Rotary
from marco_jax.tokenizers.tokenizer_files import Companions
from marco_jax.weights.huggingface import load_huggingface

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LOGITS_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-4


def relative(ours, theirs):
    theirs = np.asarray(theirs, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max())


def our_logits(config, params, tokens, positions=None, segment_ids=None, dtype=jnp.float32):
    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    model = bind(config, params)
    hidden, _ = model(jnp.asarray(tokens), jnp.asarray(positions), segment_ids, dtype=dtype)
    return np.asarray(model.logits(hidden))


def random_tokens(config, *shape):
    return np.random.default_rng(1).integers(0, config.vocab_size, shape, dtype=np.int32)


def test_rotary_phases_at_32k():
    """At the published head_dim; a phase computed in bf16 would be wrong by whole turns here.

    Both sides round the same float32 products, so they differ by an ulp or so, far less than the
    0.002 by which a float32 phase near 32768 is rounded.
    """
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    config = PRESETS["qwen2_7b"]
    positions = np.arange(32_512, 32_768, dtype=np.int32)[None]
    fields = transformers.Qwen2Config(**config.to_huggingface())
    cos, sin = Qwen2RotaryEmbedding(fields)(torch.zeros(1), torch.tensor(positions).long())
    ours = Rotary.at(jnp.asarray(positions), config)
    half = config.head_dim // 2
    np.testing.assert_allclose(ours.cos[:, :, 0], cos[..., :half].numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.sin[:, :, 0], sin[..., :half].numpy(), atol=1e-5)
    exact = positions[..., None] / config.rope_theta ** (np.arange(half) / half)
    np.testing.assert_allclose(ours.cos[:, :, 0], np.cos(exact), atol=4e-3)


def test_logits_at_32k(qwen2_directory, load_torch, torch_logits):
    config, params = load_huggingface(qwen2_directory)
    tokens = random_tokens(config, 1, 64)
    positions = np.arange(32_704, 32_768, dtype=np.int32)[None]
    theirs = torch_logits(load_torch(qwen2_directory), tokens, positions=positions)
    assert relative(our_logits(config, params, tokens, positions), theirs) < LOGITS_TOLERANCE


def test_bfloat16_is_as_exact_as_theirs(published, make_directory, load_torch, torch_logits):
    """Our bfloat16 computation strays from float32 no further than about theirs does."""
    directory = make_directory(published["7B"])
    config, params = load_huggingface(directory)
    tokens = random_tokens(config, 4, 64)
    model = load_torch(directory)
    exact = torch_logits(model, tokens)
    theirs = relative(torch_logits(model.to(torch.bfloat16), tokens), exact)
    ours = relative(our_logits(config, params, tokens, dtype=jnp.bfloat16), exact)
    assert 1e-4 < ours < 1.5 * theirs


class IdTokenizer:
    """Enough of a tokenizer for the engine: every id is a word, and none ends the text."""

    eos_id = -1
    companions = Companions()

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.mark.parametrize("size", ["0.5B", "72B", "3-0.6B", "3-8B"])
def test_greedy_tokens_equal_generate(published, make_directory, load_torch, size):
    directory = make_directory(published[size])
    config, params = load_huggingface(directory)
    model = load_torch(directory)
    prompts = [random_tokens(config, length).tolist() for length in (1, 7, 33)]
    engine = Engine(config, IdTokenizer(config.vocab_size), max_length=256)
    requests = [GenerateRequest(prompt, max_new_tokens=100) for prompt in prompts]
    for prompt, generation in zip(prompts, engine.generate(params, requests), strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=100,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert list(generation.ids) == theirs
