"""The demo's own export in transformers: its corpus, its tokenizer, a short run of its model."""

import jax
import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.model.qwen2 import bind
from marco_jax.weights.models import load_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Two in each of ten languages, in seven scripts.
PROMPTS = (
    *("Please enter a valid", "The file could not be"),
    *("请输入有效的", "无法保存此"),
    *("Пожалуйста, введите", "Этот файл не"),
    *("অনুগ্রহ করে", "এই ফাইলটি"),
    *("الرجاء إدخال", "لا يمكن حفظ"),
    *("Bitte geben Sie", "Die Datei konnte"),
    *("कृपया मान्य", "यो फाइल"),
    *("Енгізіңіз", "Бұл файл"),
    *("กรุณากรอก", "ไฟล์นี้"),
    *("Geçerli bir değer", "Bu dosya"),
)


def load_without_warnings(exported, capfd, caplog):
    """The model and the tokenizer, as a user loads them; whatever is said fails the test."""
    transformers.logging.enable_propagation()
    capfd.readouterr()
    with caplog.at_level("WARNING"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
        model = transformers.AutoModelForCausalLM.from_pretrained(exported)
    transformers.logging.disable_propagation()
    said = [record.message for record in caplog.records if record.name.startswith("transformers")]
    printed = capfd.readouterr().err.splitlines()
    assert said == [] and [x for x in printed if x.strip() and "Loading weights" not in x] == []
    return model, tokenizer


def check_export(workdir, theirs, tokenizer, new_tokens=200):
    """Same ids, logits within 2e-5 of the largest, the same greedy tokens for every prompt."""
    ours = load_model(workdir)
    prompts = [ours.tokenizer.encode(prompt) for prompt in PROMPTS]
    assert [tokenizer.encode(prompt) for prompt in PROMPTS] == prompts
    requests = [GenerateRequest(prompt, new_tokens) for prompt in prompts]
    results = Engine(ours.config, ours.tokenizer).generate(ours.params, requests)
    differences, lengths = [], []
    for prompt, result in zip(prompts, results, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected = theirs(ids).logits[0].numpy()
            generated = theirs.generate(ids, max_new_tokens=new_tokens, do_sample=False)
        model = bind(ours.config, ours.params)
        hidden, _ = model(np.array([prompt], np.int32), np.arange(len(prompt))[None])
        logits = np.asarray(model.logits(hidden))[0]
        differences.append(np.abs(logits - expected).max() / np.abs(expected).max())
        tokens = generated[0, len(prompt) :].tolist()
        if ours.tokenizer.eos_id in tokens:
            tokens = tokens[: tokens.index(ours.tokenizer.eos_id)]
        assert list(result.ids) == tokens
        assert result.text == tokenizer.decode(tokens, skip_special_tokens=True)
        lengths.append(len(tokens))
    # float32 sums in another order, through the layers of the model.
    assert max(differences) < 2e-5
    return max(differences), lengths


@pytest.mark.slow
def test_transformers_continues_the_demos_export_as_we_do(root, tmp_path, capfd, caplog):
    workdir, exported, saved = tmp_path / "run", tmp_path / "exported", tmp_path / "saved"
    flags = ["--config.steps=30", "--config.evaluation.tasks=", "--config.checkpoint.every=0"]
    config = f"--config={root / 'configs/demo.py'}"
    assert main(["train", config, f"--workdir={workdir}", *flags]) == 0
    assert main(["export", f"--model={workdir}", f"--out={exported}"]) == 0
    model, tokenizer = load_without_warnings(exported, capfd, caplog)
    difference, lengths = check_export(workdir, model, tokenizer)
    with capfd.disabled():
        print(f" largest difference {difference:.1e}, tokens {sum(lengths)} ", end="")
    # Through transformers' own files and back: every bit, and every id.
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    assert main(["import", f"--hf={saved}", f"--out={tmp_path / 'back'}"]) == 0
    first, second = load_model(workdir), load_model(tmp_path / "back")
    assert first.config == second.config
    for ours, theirs in zip(
        jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    for prompt in PROMPTS:
        assert second.tokenizer.encode(prompt) == first.tokenizer.encode(prompt)
