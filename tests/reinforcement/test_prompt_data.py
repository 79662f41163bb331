"""The prompts of rounds: each once an epoch, by their shares, the same after a restart."""

import collections
import json
import types

import pytest
from ml_collections import ConfigDict

from marco_jax.data.corpus import Corpus
from marco_jax.data.sources import Input, Source
from marco_jax.reinforcement.prompt_data import PromptData
from marco_jax.tokenizers.chat_templates import CHATML
from marco_jax.training.defaults import training_config


class Words:
    """A token for each character."""

    eos_id, eos_token = 0, "<|endoftext|>"
    companions = types.SimpleNamespace(chat_template=CHATML, settings={}, generation=None)

    def encode(self, text):
        return [ord(character) for character in text]


def source(name, count, language=""):
    records = tuple(
        {"prompt": f"{name} {n}", "reference": str(n), "id": f"{name}{n}", "language": code}
        for n, code in zip(range(count), ["en", "kk"] * count, strict=False)
    )
    return Source(name, "prompt", (Input(records=records),), language, held_out=0.0)


@pytest.fixture
def prompts(tmp_path):
    """Makes the prompts of a run over two sources, of 30 and of 10 prompts."""

    def make(stages=(("one", 20),), **fields):
        config = training_config()
        config.mixture.within = "proportional"
        config.grpo.prompts = 4
        with config.unlocked():
            for name, value in fields.items():
                group, _, leaf = name.rpartition("__")
                (config[group] if group else config)[leaf] = value
        plan = types.SimpleNamespace(
            stages=[
                types.SimpleNamespace(name=name, mixture="prompt", steps=steps)
                for name, steps in stages
            ],
            batch_rows=8,
        )
        corpus = Corpus([source("large", 30, "kk"), source("small", 10)])
        return PromptData(ConfigDict(config), tmp_path, corpus, Words(), plan)

    return make


def asked(data, rounds, source=""):
    keys = [prompt.key for number in rounds for prompt in data.round(number)]
    return [key for key in keys if key.startswith(source)]


def test_each_prompt_is_answered_once_an_epoch(prompts):
    data = prompts()
    for source, size in (("large", 30), ("small", 10)):
        keys = asked(data, range(40), source)
        first, second = keys[:size], keys[size : 2 * size]
        assert len(set(first)) == len(set(second)) == size
        assert first != second
    assert asked(prompts(), [13]) == asked(data, [13])
    assert asked(prompts(seed=1), [0]) != asked(data, [0])


def test_a_stage_goes_on_where_the_one_before_it_ended(prompts):
    data = prompts(stages=(("one", 5), ("two", 15)))
    assert len(set(asked(data, range(20), "large")[:30])) == 30


def test_shares_are_those_of_the_mixture(prompts):
    data = prompts(stages=(("one", 32),), mixture__within="uniform")
    found = collections.Counter(key.rstrip("0123456789") for key in asked(data, range(32)))
    assert found == {"large": 64, "small": 64}
    tilted = prompts(stages=(("one", 32),), mixture__override="small=0.25")
    found = collections.Counter(key.rstrip("0123456789") for key in asked(tilted, range(32)))
    assert found == {"large": 96, "small": 32}


def test_labels_tell_languages_apart(prompts):
    data = prompts()
    assert data.labels == ("large", "small/en", "small/kk")
    prompt = next(p for p in data.round(0) + data.round(1) if p.key.startswith("small"))
    assert data.labels[prompt.label] == f"small/{prompt.record['language']}"
    assert prompt.record["reference"] == prompt.key.removeprefix("small")
    said = "".join(map(chr, prompt.ids))
    assert said.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_round_of_several_steps_has_one_set_of_prompts(prompts):
    data = prompts(grpo__updates=2, grpo__epochs=2)
    assert data.describe_batch(0) == data.describe_batch(3) != data.describe_batch(4)


def test_other_prompts_are_not_gone_on_with_in_silence(prompts):
    state = json.loads(json.dumps(prompts().state(3)))
    prompts().resume(state, 3)
    other = prompts(grpo__group=2)
    with pytest.raises(ValueError, match="round of prompts: .* mixture.accept_change=true"):
        other.resume(state, 3)
    with pytest.raises(ValueError, match="shares of prompts"):
        prompts(mixture__override="small=0.5").resume(state, 3)
    prompts(grpo__group=2, mixture__accept_change=True).resume(state, 3)
    # Checkpoints of old do not have it.
    prompts().resume({}, 3)
