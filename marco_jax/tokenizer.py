"""Tokenizers behind one small interface: Qwen2's byte-level BPE, and SentencePiece.

Both read NFC text, add no BOS, and name one id that separates documents. `vocab_size` counts real
ids; a model's embedding may have more rows.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Protocol

import sentencepiece
import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from marco_jax.chat_templates import CHAT_TEMPLATE, read_chat_template

SEPARATOR = "<|endoftext|>"

# Qwen2's special tokens, which follow the 151,643 ordinary ones.
QWEN2_SPECIALS = (SEPARATOR, "<|im_start|>", "<|im_end|>")

# Qwen2's pretokenisation, as in its own tokenizer.json. Its letter class has no \p{M}: Bengali,
# Nepali, Thai and vowelled Arabic are cut at combining marks.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Longer lines are cut for SentencePiece's training, which leaves out those over 4192 bytes.
_LINE_CHARACTERS = 1000


class Tokenizer(Protocol):
    """What the product needs of a tokenizer."""

    vocab_size: int
    eos_id: int
    separator: str
    # How its files write a conversation, in Jinja; None where they do not say.
    chat_template: str | None

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary: equal tokenizers have equal ones."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text; nothing is added to it."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts."""
        ...

    def encode_places(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of an NFC text, and the character at which each of them begins."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        ...

    def save(self, directory: str | os.PathLike) -> None:
        """Writes files that `load_tokenizer` and `transformers.AutoTokenizer` read alike."""
        ...


class BytePairTokenizer:
    """A tokenizer of the `tokenizers` library, such as Qwen2's byte-level BPE."""

    chat_template: str | None = None

    def __init__(self, backend: tokenizers.Tokenizer, separator: str = SEPARATOR) -> None:
        """Takes a tokenizer and the token that separates documents.

        Raises:
            ValueError: the vocabulary has no such token.
        """
        self._backend = backend
        eos_id = backend.token_to_id(separator)
        if eos_id is None:
            raise ValueError(f"the tokenizer has no token {separator!r} to separate documents")
        self.separator = separator
        self.eos_id: int = eos_id
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the whole definition."""
        return _hash(self._backend.to_str().encode())

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts."""
        return [e.ids for e in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def encode_places(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of an NFC text, and the character at which each of them begins."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; broken UTF-8 becomes U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        ids = [self._backend.token_to_id(token) for token in QWEN2_SPECIALS]
        is_qwen2 = ids == [151_643, 151_644, 151_645]
        kind = "Qwen2Tokenizer" if is_qwen2 else "PreTrainedTokenizerFast"
        _write_fast(pathlib.Path(directory), self._backend, self.separator, kind)
        _write_template(pathlib.Path(directory), self.chat_template)


class SentencePieceTokenizer:
    """A SentencePiece unigram model with byte fallback, which keeps whitespace as it is.

    U+2581 stands for a space inside SentencePiece: where a text has one, decoding gives a space.
    The names of its control pieces in a text are those pieces, as with Qwen2's special tokens.
    """

    chat_template: str | None = None

    def __init__(self, model: bytes) -> None:
        """Takes the bytes of a tokenizer.model.

        Raises:
            ValueError: a model of another kind, e.g. one that changes the text.
        """
        _check_model(model)
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size: int = self._processor.vocab_size()
        self.eos_id: int = self._processor.eos_id()
        self.separator: str = self._processor.id_to_piece(self.eos_id)
        pieces = {self._processor.id_to_piece(i): i for i in self._control_ids()}
        self._specials = pieces
        self._marks = re.compile("(" + "|".join(map(re.escape, pieces)) + ")")

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the model."""
        return _hash(self._model)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; the separator's name in it is the separator, as with Qwen2."""
        ids: list[int] = []
        for part in self._marks.split(unicodedata.normalize("NFC", text)):
            special = self._specials.get(part)
            ids += self._processor.encode(part) if special is None else [special]
        return ids

    def encode_places(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of an NFC text, and the character at which each of them begins."""
        ids: list[int] = []
        places: list[int] = []
        start = 0
        for part in self._marks.split(text):
            if part in self._specials:
                ids.append(self._specials[part])
                places.append(start)
            else:
                pieces = self._processor.encode(part, out_type="immutable_proto").pieces
                ids += [piece.id for piece in pieces]
                places += [start + piece.begin for piece in pieces]
            start += len(part)
        return ids, places

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, on all cores."""
        plain = [unicodedata.normalize("NFC", text) for text in texts]
        return [
            self.encode(text) if self._marks.search(text) else ids
            for text, ids in zip(plain, self._processor.encode(plain), strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; broken UTF-8 becomes U+FFFD."""
        # No text has the unknown piece, but a model may emit it.
        skipped = (*self._specials.values(), self._processor.unk_id())
        return self._processor.decode([int(i) for i in ids if i not in skipped])

    def save(self, directory: str | os.PathLike) -> None:
        """Writes tokenizer.model, and the same model as tokenizer.json for transformers."""
        directory = pathlib.Path(directory)
        _write_fast(directory, self._fast(), self.separator, "PreTrainedTokenizerFast")
        _write(directory / "tokenizer.model", self._model)
        _write_template(directory, self.chat_template)

    def _control_ids(self) -> list[int]:
        ids = range(self.vocab_size)
        return [
            self.eos_id,
            *(i for i in ids if i != self.eos_id and self._processor.is_control(i)),
        ]

    def _fast(self) -> tokenizers.Tokenizer:
        processor = self._processor
        pieces = [
            (processor.id_to_piece(i), processor.get_score(i)) for i in range(self.vocab_size)
        ]
        unigram = models.Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=True)
        fast = tokenizers.Tokenizer(unigram)
        # SentencePiece writes a space as U+2581; the model was trained without a space in front.
        fast.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(" ", "\u2581")]
        )
        fast.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        fast.add_special_tokens(
            [AddedToken(piece, normalized=False, special=True) for piece in self._specials]
        )
        return fast


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads tokenizer files: a directory, or one of the files themselves.

    Understood, the first that is there: tokenizer.model (passed over where `SentencePieceTokenizer`
    does not read it and a tokenizer.json is there too), tokenizer.json, vocab.json + merges.txt,
    *.tiktoken (the last two: Qwen2's vocabulary, rebuilt).

    Raises:
        FileNotFoundError: none of them.
    """
    path = pathlib.Path(path)
    directory = path if path.is_dir() else path.parent
    tokenizer = _load(path, directory)
    tokenizer.chat_template = read_chat_template(directory)
    return tokenizer


def _load(path: pathlib.Path, directory: pathlib.Path) -> Tokenizer:
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    by_name = {file.name: file for file in files}
    if "tokenizer.model" in by_name:
        try:
            return SentencePieceTokenizer(by_name["tokenizer.model"].read_bytes())
        except ValueError:
            if "tokenizer.json" not in by_name:
                raise
    if "tokenizer.json" in by_name:
        backend = _read_backend(by_name["tokenizer.json"])
        return BytePairTokenizer(backend, _separator(directory, backend))
    if "vocab.json" in by_name or "merges.txt" in by_name:
        return _from_merges(directory)
    ranks = [file for file in files if file.suffix == ".tiktoken"]
    if ranks:
        return qwen2_tokenizer(*_replay_merges(ranks[0]))
    raise FileNotFoundError(
        f"{path} holds no tokenizer: give a directory with tokenizer.json, tokenizer.model, "
        "vocab.json and merges.txt, or qwen.tiktoken"
    )


def _read_backend(path: pathlib.Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{path} is no tokenizer.json: {error}") from None


def qwen2_tokenizer(vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> BytePairTokenizer:
    """Qwen2's tokenizer from its byte-level vocabulary and merges (Qwen2's tokenizer.json)."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in QWEN2_SPECIALS]
    )
    return BytePairTokenizer(backend)


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, directory: str | os.PathLike
) -> SentencePieceTokenizer:
    """Trains a unigram model with byte fallback and saves it in `directory`.

    Whitespace is kept as it is and digits stand alone. The control piece `<|endoftext|>` separates
    documents; those of ChatML are there too. Id 0 is an ordinary piece, as in Qwen2.

    Raises:
        ValueError: too little text for so many pieces.
    """
    lines = (
        line[start : start + _LINE_CHARACTERS]
        for text in texts
        for line in unicodedata.normalize("NFC", text).split("\n")
        for start in range(0, len(line), _LINE_CHARACTERS)
    )
    model = _ByteSink()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            byte_fallback=True,
            # The rarest characters (mostly Chinese) are left to byte fallback.
            character_coverage=0.9995,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            # One thread: the order of a sum over threads would show in the scores.
            num_threads=1,
            user_defined_symbols=["\n"],
            control_symbols=list(QWEN2_SPECIALS[1:]),
            unk_id=1,
            eos_id=2,
            bos_id=-1,
            pad_id=-1,
            eos_piece=SEPARATOR,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"tokenizer.vocab_size {vocab_size} does not suit this text: {error}"
        ) from None
    tokenizer = SentencePieceTokenizer(_round_scores(bytes(model.data)))
    tokenizer.save(directory)
    return tokenizer


def _round_scores(model: bytes) -> bytes:
    """The model with scores of so few bits that sums are exact, in any order and precision.

    Else libraries part where two segmentations are equally likely (">" + ">>", ">>" + ">").
    """
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    except DecodeError as error:
        raise ValueError(f"tokenizer.model is no SentencePiece model: {error}") from None
    for piece in proto.pieces:
        piece.score = round(piece.score * 64) / 64
    return proto.SerializeToString(deterministic=True)


def _check_model(model: bytes) -> None:
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    except DecodeError as error:
        raise ValueError(f"tokenizer.model is no SentencePiece model: {error}") from None
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    changes_text = normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces
    unigram = trainer.model_type == trainer.UNIGRAM and trainer.byte_fallback
    if not unigram or changes_text or normalizer.add_dummy_prefix or trainer.eos_id < 0:
        raise ValueError(
            "tokenizer.model is not a unigram model with byte fallback, identity normalisation, no "
            "space put in front and an end-of-sentence piece: give tokenizer.json instead"
        )


class _ByteSink:
    """A file object that collects what is written."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def _separator(directory: pathlib.Path, backend: tokenizers.Tokenizer) -> str:
    """The document separator: `<|endoftext|>` where there is one, else the directory's eos."""
    if backend.token_to_id(SEPARATOR) is not None:
        return SEPARATOR
    config = directory / "tokenizer_config.json"
    eos = json.loads(config.read_text("utf-8")).get("eos_token") if config.exists() else None
    eos = eos.get("content") if isinstance(eos, dict) else eos
    if not eos:
        raise ValueError(
            f"{directory}: the tokenizer has neither {SEPARATOR} nor an eos_token in "
            "tokenizer_config.json: name one there"
        )
    return eos


def _from_merges(directory: pathlib.Path) -> BytePairTokenizer:
    for name in ("vocab.json", "merges.txt"):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory / name} is missing beside its other half")
    vocab = json.loads((directory / "vocab.json").read_text("utf-8"))
    # Some packages ship the file with CRLF ends; \r is never part of a merge.
    lines = (directory / "merges.txt").read_text("utf-8").replace("\r", "").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return qwen2_tokenizer(vocab, merges)


def _replay_merges(file: pathlib.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a tiktoken rank file.

    A token of rank r arose from the two parts that merging by lower ranks leaves of its bytes.
    """
    ranks = {}
    for line in file.read_bytes().splitlines():
        if line.strip():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    letters = _byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            left, right = _last_merge(token, rank, ranks)
            merges.append((written[left], written[right]))
    return {written[token]: rank for token, rank in ranks.items()}, merges


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        merged = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
        best = min(range(len(merged)), key=merged.__getitem__)
        if merged[best] >= rank:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    if len(parts) != 2:
        raise ValueError(f"the rank file has no merge that makes token {rank}: is it complete?")
    return parts


def _byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte, which vocab.json and merges.txt are written in."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in letters]
    letters |= {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def _write_fast(
    directory: pathlib.Path, backend: tokenizers.Tokenizer, separator: str, kind: str
) -> None:
    config = {
        "tokenizer_class": kind,
        "eos_token": separator,
        "pad_token": separator,
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    _write(directory / "tokenizer.json", backend.to_str(pretty=True).encode())
    _write(directory / "tokenizer_config.json", json.dumps(config, indent=2).encode() + b"\n")


def _write_template(directory: pathlib.Path, template: str | None) -> None:
    if template is not None:
        _write(directory / CHAT_TEMPLATE, template.encode())


def _write(path: pathlib.Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
