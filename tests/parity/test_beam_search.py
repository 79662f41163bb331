"""Beam search against transformers, in float32."""

import numpy as np
import pytest

from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.model.huggingface import load_huggingface

torch = pytest.importorskip("torch")


class Words:
    """A tokenizer of numbers; 5 ends a text."""

    eos_id = 5

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.mark.parametrize(("beams", "penalty"), [(3, 1.0), (4, 0.0), (2, 2.0)])
def test_the_best_beam_equals_theirs(published, make_directory, load_torch, beams, penalty):
    directory = make_directory(published["0.5B"] | {"vocab_size": 12})
    config, params = load_huggingface(directory)
    model = load_torch(directory)
    random = np.random.default_rng(3)
    prompts = [random.integers(6, 12, size).tolist() for size in (1, 4, 9, 9, 12, 17)]
    engine = Engine(config, Words(12), max_length=256)
    requests = [GenerateRequest(prompt, max_new_tokens=24) for prompt in prompts]
    results = engine.beam_search(params, requests, beams=beams, length_penalty=penalty)
    for prompt, result in zip(prompts, results, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=24,
            num_beams=beams,
            length_penalty=penalty,
            do_sample=False,
            eos_token_id=5,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        theirs = theirs[: theirs.index(5)] if 5 in theirs else theirs
        assert list(result.ids) == theirs
    # Some texts end by themselves, or the penalty would not be tested.
    assert len({len(result.ids) for result in results}) > 1
