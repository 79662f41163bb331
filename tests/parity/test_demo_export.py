"""The demo's own export in transformers: its corpus, its tokenizer, a short run of its model."""

import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.model.qwen2 import bind
from marco_jax.training.models import load_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Latin, Han, Cyrillic, Bengali and Arabic script.
PROMPTS = (
    "Please enter a valid",
    "请输入有效的",
    "Пожалуйста, введите",
    "অনুগ্রহ করে",
    "الرجاء إدخال",
)


def check_export(workdir, exported):
    """Same ids, logits within 2e-5 of the largest, the same 100 greedy tokens for every prompt."""
    ours = load_model(workdir)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(exported)
    prompts = [ours.tokenizer.encode(prompt) for prompt in PROMPTS]
    assert [fast.encode(prompt) for prompt in PROMPTS] == prompts
    requests = [GenerateRequest(prompt, 100) for prompt in prompts]
    results = Engine(ours.config, ours.tokenizer).generate(ours.params, requests)
    differences = []
    for prompt, result in zip(prompts, results, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected = theirs(ids).logits[0].numpy()
            generated = theirs.generate(ids, max_new_tokens=100, do_sample=False)
        model = bind(ours.config, ours.params)
        hidden, _ = model(np.array([prompt], np.int32), np.arange(len(prompt))[None])
        logits = np.asarray(model.logits(hidden))[0]
        differences.append(np.abs(logits - expected).max() / np.abs(expected).max())
        tokens = generated[0, len(prompt) :].tolist()
        if ours.tokenizer.eos_id in tokens:
            tokens = tokens[: tokens.index(ours.tokenizer.eos_id)]
        assert list(result.ids) == tokens
    # float32 sums in another order, through the layers of the model.
    assert max(differences) < 2e-5
    return max(differences)


@pytest.mark.slow
def test_transformers_continues_the_demos_export_as_we_do(root, tmp_path):
    workdir, exported = tmp_path / "run", tmp_path / "exported"
    flags = ["--config.steps=30", "--config.evaluation.tasks=", "--config.checkpoint.every=0"]
    config = f"--config={root / 'configs/demo.py'}"
    assert main(["train", config, f"--workdir={workdir}", *flags]) == 0
    assert main(["export", f"--model={workdir}", f"--out={exported}"]) == 0
    check_export(workdir, exported)
