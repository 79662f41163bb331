"""Drafts change how many steps generation takes, and none of its outputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.decoding.drafts import count_right, look_up
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, Sampling
from marco_jax.model.mesh import Sharding, create_mesh, parameter_shardings
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.tokenizers.tokenizer_files import Companions

TINY = dataclasses.replace(PRESETS["tiny"], max_position_embeddings=256)


class Words:
    """A tokenizer of numbers."""

    vocab_size, eos_id = 250, 3
    companions = Companions()

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def params():
    # Larger weights than at the start of training, so that argmaxes are clear.
    return jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, init_params(TINY, seed=1))


def drafts(tokens, count):
    history = jnp.zeros((1, 16), jnp.int32).at[0, : len(tokens)].set(jnp.array(tokens))
    return look_up(history, jnp.array([len(tokens) - 1]), count)[0].tolist()


def test_a_draft_follows_the_longest_and_last_earlier_occurrence():
    assert drafts([1, 2, 3, 7, 9, 3, 8, 1, 2, 3], 3) == [7, 9, 3]
    assert drafts([3, 7, 4, 3, 8, 5, 3], 2) == [8, 5]
    # What is repeated goes on.
    assert drafts([5, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]


def test_drafts_are_right_up_to_the_first_difference():
    drawn = jnp.array([[4, 5, 6, 1], [4, 5, 6, 1], [4, 5, 6, 1]])
    guesses = jnp.array([[4, 5, 6], [4, 9, 6], [9, 5, 6]])
    assert count_right(guesses, drawn).tolist() == [3, 1, 0]


def requests():
    """More prompts than rows, of few words, with a beginning in common and without."""
    random = np.random.default_rng(2)
    shared = random.integers(0, 12, 80).tolist()
    return [
        GenerateRequest(
            (shared if n % 3 else []) + random.integers(0, 12, random.integers(1, 30)).tolist(),
            int(random.integers(1, 50)),
        )
        for n in range(12)
    ]


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0.3, top_k=3)])
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_outputs_are_the_same_with_drafts(params, sampling, count):
    plain = Engine(TINY, Words(), tokens_per_batch=600)
    engine = Engine(TINY, Words(), tokens_per_batch=600, drafts=count)
    expected = plain.generate(params, requests(), sampling=sampling)
    assert engine.generate(params, requests(), sampling=sampling) == expected
    made, before = engine.counts, plain.counts
    assert before.emitted == before.filled == sum(len(x.ids) + x.ended for x in expected)
    assert made.emitted == before.emitted and made.filled < before.filled
    assert made.drafted == count * made.filled and 0 < made.accepted_share < 1
    assert 0 < made.filled_share <= 1


def test_outputs_are_the_same_with_drafts_on_a_mesh(params):
    sharding = Sharding(create_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    laid = jax.device_put(params, parameter_shardings(TINY, sharding))
    engine = Engine(TINY, Words(), sharding=sharding, drafts=3)
    assert engine.generate(laid, requests()) == Engine(TINY, Words()).generate(params, requests())


def test_a_stop_string_ends_a_row_with_drafts(params):
    free = Engine(TINY, Words()).generate(params, [GenerateRequest([9, 8, 7], 40)])[0]
    asked = [GenerateRequest([9, 8, 7], 40, (free.text.split()[5],))]
    plain, made = (Engine(TINY, Words(), drafts=count) for count in (0, 4))
    assert made.generate(params, asked) == plain.generate(params, asked)


def test_a_negative_number_of_drafts_is_refused():
    with pytest.raises(ValueError, match="drafts is -1"):
        Engine(TINY, Words(), drafts=-1)
