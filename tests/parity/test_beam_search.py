"""Beam search against transformers, in float32."""

import json

import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.tokenizers.tokenizer import load_tokenizer, train_sentencepiece
from marco_jax.tokenizers.tokenizer_files import Companions
from marco_jax.weights.huggingface import load_huggingface

torch = pytest.importorskip("torch")


class Words:
    """A tokenizer of numbers; 5 ends a text."""

    eos_id = 5
    companions = Companions()

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.mark.parametrize(
    ("beams", "penalty", "ends"), [(3, 1.0, [5]), (4, 0.0, [5]), (2, 2.0, [5]), (3, 1.0, [5, 8, 2])]
)
def test_the_best_beam_equals_theirs(published, make_directory, load_torch, beams, penalty, ends):
    directory = make_directory(published["0.5B"] | {"vocab_size": 12})
    config, params = load_huggingface(directory)
    model = load_torch(directory)
    random = np.random.default_rng(3)
    prompts = [random.integers(6, 12, size).tolist() for size in (1, 4, 9, 9, 12, 17)]
    engine = Engine(config, Words(12), max_length=256, end_ids=ends)
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
            eos_token_id=ends,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        stop = next((at for at, token in enumerate(theirs) if token in ends), None)
        theirs = theirs[:stop]
        assert list(result.ids) == theirs
    # Some texts end by themselves, or the penalty would not be tested.
    assert len({len(result.ids) for result in results}) > 1


TEXT = "the cat sat on a mat and then ran to its house because it was cold in wet grass"


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_the_command_searches(published, make_directory, load_torch, tmp_path, capsys, penalty):
    directory = make_directory(published["0.5B"] | {"vocab_size": 280, "eos_token_id": 2})
    train_sentencepiece([TEXT] * 20, 280, directory)
    (directory / "tokenizer.model").unlink()  # broken UTF-8 reads alike with one library
    tokenizer, model = load_tokenizer(directory), load_torch(directory)
    prompts = [TEXT[:17], TEXT[:40], "it was"]
    source, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    flags = ["--max_new_tokens=12", "--beams=3", f"--length_penalty={penalty}"]
    command = ["generate", f"--model={directory}", *flags]
    assert main([*command, f"--input={source}", f"--out={out}"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == prompts
    for prompt, row in zip(prompts, rows, strict=True):
        ids = tokenizer.encode(prompt)
        theirs = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=12,
            num_beams=3,
            length_penalty=penalty,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=2,
        )[0, len(ids) :].tolist()
        theirs = theirs[: theirs.index(2)] if 2 in theirs else theirs
        assert row["text"] == tokenizer.decode(theirs)
    capsys.readouterr()
    assert main([*command, f"--prompt={prompts[1]}"]) == 0
    assert capsys.readouterr().out == rows[1]["text"] + "\n"


@pytest.mark.parametrize(
    ("flags", "named"),
    [(["--beams=0"], "--beams is 0"), (["--beams=2", "--temperature=1"], "draw")],
)
def test_flags_that_make_no_search(flags, named, capsys):
    assert main(["generate", "--model=none", "--prompt=x", *flags]) == 2
    assert named in capsys.readouterr().err
