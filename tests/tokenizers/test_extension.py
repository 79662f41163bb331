"""Larger vocabularies: new pieces, their first rows, and what they save."""

import json

import ml_dtypes
import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.__main__ import main
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.tokenizers.extension import (
    ROWS,
    compare_fertility,
    extend_vocabulary,
    fertility,
    format_fertility,
)
from marco_jax.tokenizers.tokenizer import (
    EOS_TOKEN,
    byte_letters,
    load_tokenizer,
    qwen2_tokenizer,
    train_sentencepiece,
)
from marco_jax.weights.huggingface import load_huggingface, save_huggingface
from marco_jax.weights.models import load_model

TEXTS = {
    "kk": ["қадам жаңа мәтін оқиды және күйін сақтайды", "жаңа қадам мәтін сақтайды"] * 20,
    "ne": ["नयाँ पाठ पढ्छ र आफ्नो अवस्था बचत गर्छ", "पाठ बचत गर्छ"] * 20,
}
HELD_OUT = {"kk": ["жаңа мәтін", "күйін оқиды"], "ne": ["नयाँ पाठ"], "en": ["a new text"]}


@pytest.fixture(scope="module")
def small():
    """Bytes, a few merges and Qwen2's specials: ids as Qwen2's are ordered."""
    letters = {letter: number for number, letter in enumerate(byte_letters())}
    merges = [("Ò", "»"), ("Ñ", "Ī"), ("t", "e"), ("te", "x")]
    for number, pair in enumerate(merges, start=256):
        letters["".join(pair)] = number
    return qwen2_tokenizer(letters, merges)


@pytest.fixture(scope="module")
def extension(small):
    return extend_vocabulary(small, TEXTS, tokens=60, characters=10_000)


def old_ids(extension, ids):
    """Ids with every new one written as it was before."""
    found = []
    for token in ids:
        number = token - extension.first
        found += extension.old_ids[number] if number >= 0 else [token]
    return found


def test_old_ids_stay_and_new_ones_follow_the_specials(small, extension):
    larger = extension.tokenizer
    assert extension.first == small.vocab_size == 263
    assert larger.vocab_size == 263 + 60 == extension.first + len(extension.old_ids)
    assert larger.eos_id == small.eos_id
    specials = f"{EOS_TOKEN}<|im_start|><|im_end|>"
    assert larger.encode(specials) == small.encode(specials) == [260, 261, 262]
    for text in ("a new text, 12!", "texte", "中文"):
        assert larger.encode(text) == small.encode(text)
    assert larger.fingerprint != small.fingerprint


def test_new_pieces_write_the_same_text_in_fewer_ids(small, extension):
    for texts in (*TEXTS.values(), *HELD_OUT.values()):
        for text in texts:
            ids = extension.tokenizer.encode(text)
            assert extension.tokenizer.decode(ids) == text
            assert old_ids(extension, ids) == small.encode(text)
    assert len(extension.tokenizer.encode("жаңа мәтін")) < len(small.encode("жаңа мәтін")) / 2


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_what_it_was(small, extension, text):
    ids = extension.tokenizer.encode(text)
    assert extension.tokenizer.decode(ids) == small.decode(small.encode(text))


def test_a_saved_one_has_the_same_ids_in_transformers(extension, tmp_path):
    extension.tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert len(theirs) == ours.vocab_size
    for text in [*HELD_OUT["kk"], *HELD_OUT["ne"], f"a{EOS_TOKEN}жаңа", "text"]:
        ids = extension.tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text) == ids


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_new_rows_are_means_of_the_rows_that_wrote_them(extension, dtype):
    table = np.random.default_rng(0).normal(size=(264, 8)).astype(dtype)
    grown = extension.grow(table)
    assert grown.dtype == dtype
    assert len(grown) == extension.rows(264) == 3 * ROWS
    np.testing.assert_array_equal(grown[:263], table[:263])
    for number, ids in enumerate(extension.old_ids):
        mean = np.mean([table[i].astype(np.float64) for i in ids], axis=0)
        np.testing.assert_allclose(
            grown[extension.first + number].astype(np.float64), mean, rtol=1e-2, atol=1e-2
        )
    padding = grown[extension.first + 60 :]
    np.testing.assert_array_equal(padding, np.broadcast_to(table[-1], padding.shape))
    # Enough padding already: the new rows take its place, and the table stays as long.
    assert len(extension.grow(np.zeros((512, 8), dtype))) == 512


def test_fertility_counts_tokens_words_and_bytes(small, extension):
    found = fertility(small, "en", ["a new text", "ab\n"])
    assert (found["tokens"], found["bytes"]) == (8 + 3, 10 + 3)
    assert found["tokens_per_word"] == 11 / 4
    assert found["tokens_per_byte"] == 11 / 13
    assert fertility(small, "th", ["กข"])["tokens_per_word"] is None
    compared = compare_fertility(small, extension.tokenizer, HELD_OUT)
    assert compared["en"]["before"] == compared["en"]["after"]
    for language in ("kk", "ne"):
        before, after = compared[language]["before"], compared[language]["after"]
        assert after["bytes"] == before["bytes"]
        assert after["tokens_per_word"] < before["tokens_per_word"] / 1.5
    lines = format_fertility(compared).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["kk", "ne", "en"]
    assert lines[-1].endswith("0.0%")


def test_few_words_give_few_pieces(small):
    assert 0 < len(extend_vocabulary(small, {"kk": ["жаңа жаңа"]}, 50, 1000).old_ids) < 50


def test_what_cannot_be_extended_is_refused(small, tmp_path):
    pieces = train_sentencepiece(["a b c d e f g"] * 9, 269, tmp_path)
    with pytest.raises(ValueError, match="SentencePieceTokenizer does not have: give a model with"):
        extend_vocabulary(pieces, TEXTS, 10, 1000)
    with pytest.raises(ValueError, match="no text in ne"):
        extend_vocabulary(small, {"kk": TEXTS["kk"], "ne": []}, 10, 1000)
    with pytest.raises(ValueError, match="extended by -1 tokens"):
        extend_vocabulary(small, TEXTS, -1, 1000)


@pytest.fixture
def corpus(tmp_path):
    rows = [
        {"id": f"{code} {number}", "language": code, "text": f"{text} {number}"}
        for code, texts in TEXTS.items()
        for number, text in enumerate(texts)
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_the_command_imports_a_model_with_a_larger_vocabulary(small, corpus, tmp_path, capsys):
    config = PRESETS["tiny"]
    config = type(config)(**vars(config) | {"vocab_size": 264})
    params = init_params(config, seed=0)
    save_huggingface(tmp_path / "hf", config, params, small)
    flags = ["--extend_vocabulary=60", "--languages=kk,ne", f"--data={corpus}"]
    out = tmp_path / "out"
    assert main(["import", f"--hf={tmp_path / 'hf'}", f"--out={out}", *flags]) == 0
    assert "tokens per word" in capsys.readouterr().out
    report = json.loads((out / "vocabulary.json").read_text())
    assert (report["pieces"], report["first_id"], report["tokens"]) == (60, 263, 323)
    assert (
        report["fertility"]["kk"]["after"]["tokens"] < report["fertility"]["kk"]["before"]["tokens"]
    )
    loaded = load_model(out)
    assert loaded.config.vocab_size == 384 and loaded.tokenizer.vocab_size == 323
    # The last old row was padding, and is the first new piece's now.
    for name in ("lm_head", "embed_tokens"):
        table, grown = (np.asarray(p[name]["embedding"]) for p in (params, loaded.params))
        np.testing.assert_array_equal(grown[:263], table[:263])
        longest = max(range(263, 323), key=lambda token: len(loaded.tokenizer.decode([token])))
        wrote = table[small.encode(loaded.tokenizer.decode([longest]))]
        np.testing.assert_allclose(grown[longest], wrote.mean(axis=0), rtol=1e-6, atol=1e-8)
    assert main(["export", f"--model={out}", f"--out={tmp_path / 'again'}"]) == 0
    assert load_huggingface(tmp_path / "again")[0].vocab_size == 384
    assert load_tokenizer(tmp_path / "again").fingerprint == loaded.tokenizer.fingerprint


def test_a_wrong_language_is_one_line(small, corpus, tmp_path, capsys):
    config = type(PRESETS["tiny"])(**vars(PRESETS["tiny"]) | {"vocab_size": 264})
    save_huggingface(tmp_path / "hf", config, init_params(config, seed=0), small)
    flags = ["--extend_vocabulary=60", "--languages=kz", f"--data={corpus}"]
    assert main(["import", f"--hf={tmp_path / 'hf'}", f"--out={tmp_path / 'out'}", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "language 'kz' is unknown" in line
