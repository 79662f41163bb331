"""Plans are of the model that the run would train, where its files are here."""

import json

import pytest

from marco_jax.model.qwen2_config import PRESETS
from marco_jax.planning.planned_model import planned_model
from marco_jax.training.config import load_config


@pytest.fixture
def config(root):
    return load_config(str(root / "configs/qwen2_0_5b.py"), ["tokenizer.path=", "init_from="])


def test_an_extended_vocabulary_is_planned_for(config, tmp_path):
    sizes = {
        **{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 160_000},
        **{"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24},
        **{"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
    }
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    config.init_from = str(tmp_path)
    model, _ = planned_model(config)
    assert model.vocab_size == 160_000


def test_a_base_that_is_elsewhere_has_the_sizes_of_the_config(config):
    config.init_from = "not/here"
    model, vocabulary = planned_model(config)
    assert model == PRESETS[config.model.preset]
    assert vocabulary == config.tokenizer.vocab_size
    with pytest.raises(FileNotFoundError, match="not/here is not a model"):
        planned_model(config, needs_base=True)
