"""Adapters that we have trained, in peft; and merged, in transformers."""

import json

import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.tokenizers.tokenizer import load_tokenizer
from marco_jax.training.loop import train
from marco_jax.weights.models import find_model, load_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.slow

SMALL = (
    "steps=3",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=4",
    "model.num_key_value_heads=2",
    "model.head_dim=16",
    "tokenizer.vocab_size=340",
    "batch.length=64",
    "batch.sequences_per_chip=1",
    "evaluation.tasks=",
)
TEXTS = {
    "en": "the run saves its state and the next step reads a new batch of text",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін тоқтайды",
}


@pytest.fixture(scope="module", params=["Qwen2", "Qwen3"])
def adapted(request, root, tmp_path_factory):
    """A base as a Hugging Face directory, and a run whose adapters have moved."""
    from marco_jax.training.config import load_config

    directory = tmp_path_factory.mktemp("adapted")
    rng = np.random.default_rng(0)
    rows = [
        {"language": code, "text": " ".join(rng.choice(text.split(), 12))}
        for code, text in list(TEXTS.items()) * 60
    ]
    (directory / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = str(root / "configs/demo.py")
    norms = request.param == "Qwen3"
    kind = (f"model.qk_norm={norms}", f"model.qkv_bias={not norms}")
    given = (*SMALL, *kind, f"data={directory / 'text.jsonl'}")
    assert train(load_config(config, given), directory / "base") == 0
    command = ["export", f"--model={directory / 'base'}", f"--out={directory / 'hf'}"]
    assert main(command) == 0
    config_json = json.loads((directory / "hf/config.json").read_text())
    assert config_json["architectures"] == [f"{request.param}ForCausalLM"]
    assert f"A {request.param} model of" in (directory / "hf/README.md").read_text()
    text = "the run қадам  saves"
    ids = load_tokenizer(directory / "hf").encode(text)
    assert transformers.AutoTokenizer.from_pretrained(directory / "hf")(text)["input_ids"] == ids
    lora = (f"init_from={directory / 'hf'}", "lora.rank=4", "lora.base_dtype=float32")
    assert train(load_config(config, (*given, *lora)), directory / "lora") == 0
    return directory


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)).logits.numpy()


def test_adapters_load_in_peft_and_merged_in_transformers(adapted, tmp_path, capsys):
    run, tokens = adapted / "lora", np.arange(60).reshape(3, 20) + 5
    assert main(["export", f"--model={run}", f"--out={tmp_path / 'peft'}", "--adapter"]) == 0
    assert f"their base is {adapted / 'hf'}" in capsys.readouterr().out
    assert main(["export", f"--model={run}", f"--out={tmp_path / 'merged'}"]) == 0

    def load(directory):
        return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)

    base = logits(load(adapted / "hf"), tokens)
    theirs = logits(peft.PeftModel.from_pretrained(load(adapted / "hf"), tmp_path / "peft"), tokens)
    merged = logits(load(tmp_path / "merged"), tokens)
    scale = np.abs(base).max()
    assert np.abs(theirs - base).max() > 1e-3 * scale
    np.testing.assert_allclose(merged, theirs, atol=2e-5 * scale)
    # What `--model` loads for evaluation and generation is the same model.
    ours, again = load_model(run), load_model(tmp_path / "merged")
    assert find_model(run).lora.rank == 4
    for a, b in zip(*(flat(model.params) for model in (ours, again)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def flat(params):
    import jax

    return jax.tree.leaves(jax.device_get(params))


def test_only_adapters_are_exported_as_such(adapted, tmp_path, capsys):
    command = ["export", f"--model={adapted / 'base'}", f"--out={tmp_path / 'x'}", "--adapter"]
    assert main(command) == 2
    assert "holds no adapters: it was trained with lora.rank=0" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
