"""Samples: which prompts are asked, and what is recorded of the answers."""

import json

import pytest

from marco_jax.decoding.requests import Generation
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.samples import BUILTIN_PROMPTS, Samples, sample_prompts
from marco_jax.weights.models import load_model


def test_the_builtin_prompts_are_one_a_language():
    codes = [code for code, _ in BUILTIN_PROMPTS]
    assert codes == ["en", "zh", "ar", "es", "ru", "hi", "bn", "kk", "ne", "ur"]
    for _, prompt in BUILTIN_PROMPTS:
        # A space at the end would be a token that the continuation should start with.
        assert prompt == prompt.strip() and len(prompt) > 10


def test_prompts_are_those_of_the_corpus():
    assert [code for code, _ in sample_prompts("", 10, ["kk", "de", "en", ""])] == ["en", "kk"]
    assert [code for code, _ in sample_prompts("", 1, ["kk", "en"])] == ["en"]
    # None of the ten: all of them.
    assert sample_prompts("", 10, ["de", ""]) == list(BUILTIN_PROMPTS)
    assert sample_prompts("", 3) == list(BUILTIN_PROMPTS[:3])
    assert sample_prompts("/nowhere/prompts.jsonl", 0, ["en"]) == []


def test_prompts_of_a_file_are_asked_whatever_the_corpus_has(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"language": "sw", "prompt": f"Maji {n}", "note": n} for n in range(4)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert sample_prompts(str(path), 3, ["en"]) == [("sw", f"Maji {n}") for n in range(3)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "prompts.jsonl:2"),
        ('{"prompt": "Water"}', 'prompts.jsonl:2: no text under "language"'),
        ('{"language": "en"}', 'prompts.jsonl:2: no text under "prompt"'),
        ('{"language": "en", "prompt": 3}', 'prompts.jsonl:2: no text under "prompt"'),
        ('{"language": "en", "prompt": " "}', 'prompts.jsonl:2: the text under "prompt" is empty'),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"language": "en", "prompt": "Water"}\n' + line, encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        sample_prompts(str(path), 10)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no prompts"):
        sample_prompts(str(path), 10)


class Writer:
    """An engine that writes the end of its prompt, and ends every second text."""

    def __init__(self, tokenizer):
        self.tokenizer, self.asked = tokenizer, []

    def generate(self, params, requests, *, finished, together):
        assert together
        self.asked += requests
        answers = []
        for number, request in enumerate(requests):
            finished(1)
            text = f" {self.tokenizer.decode(request.prompt)[-params:]}"
            answers.append(Generation((), text, ended=number % 2 == 0))
        return answers


def test_what_is_recorded_is_the_prompt_and_the_text_without_it(byte_tokenizer):
    engine = Writer(byte_tokenizer)
    calls = []
    samples = Samples(engine, [("en", "Water is"), ("kk", "Су")], tokens=7)
    assert samples.generate(2, step=30, between=lambda: calls.append(0)) == {
        "step": 30,
        "tokens": 7,
        "samples": [
            {"language": "en", "prompt": "Water is", "text": " is", "ended": True},
            {"language": "kk", "prompt": "Су", "text": " Су", "ended": False},
        ],
    }
    assert [request.max_new_tokens for request in engine.asked] == [7, 7]
    assert len(calls) == 2


def test_a_chat_model_is_asked_in_its_template(chat_model):
    model = load_model(chat_model)
    engine = Writer(model.tokenizer)
    samples = Samples(engine, [("en", "Water is")], 7, Chat.of(model.tokenizer))
    recorded = samples.generate(4, step=1)["samples"]
    assert recorded[0]["prompt"] == "Water is"
    ids = engine.asked[0].prompt
    special = "<|im_start|>user\nWater is<|im_end|>\n<|im_start|>assistant\n"
    assert list(ids) == list(model.tokenizer.encode(special))
