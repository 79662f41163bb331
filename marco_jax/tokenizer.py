"""Tokenizers behind one small interface: Qwen2's byte-level BPE, and SentencePiece.

Both read NFC text, add no BOS, and name one id that separates documents. `vocab_size` counts real
ids; a model's embedding may have more rows.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import sentencepiece
import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from marco_jax.byte_level import read_merges, replay_merges
from marco_jax.tokenizer_files import Companions, read_companions, write, write_companions

SEPARATOR = "<|endoftext|>"

# Qwen2's special tokens, which follow the 151,643 ordinary ones.
QWEN2_SPECIALS = (SEPARATOR, "<|im_start|>", "<|im_end|>")
QWEN2_IDS = [151_643, 151_644, 151_645]

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
    # What is saved beside the vocabulary; it may be replaced, by a chat template for instance.
    companions: Companions

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

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        separator: str = SEPARATOR,
        companions: Companions | None = None,
    ) -> None:
        """Takes a tokenizer, the token that separates documents, and what is saved beside it.

        Raises:
            ValueError: the vocabulary has no such token.
        """
        self.backend = backend
        self.companions = companions or Companions()
        eos_id = backend.token_to_id(separator)
        if eos_id is None:
            raise ValueError(f"the tokenizer has no token {separator!r} to separate documents")
        self.separator = separator
        self.eos_id: int = eos_id
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the whole definition."""
        return _hash(self.backend.to_str().encode())

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts."""
        return [e.ids for e in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def encode_places(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of an NFC text, and the character at which each of them begins."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; broken UTF-8 becomes U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes tokenizer.json and what belongs beside it."""
        directory = pathlib.Path(directory)
        write(directory / "tokenizer.json", self.backend.to_str(pretty=True).encode())
        qwen2 = self._is_qwen2()
        write_companions(directory, self.companions, self.separator, qwen2=qwen2)

    def _is_qwen2(self) -> bool:
        """Whether all but vocabulary and merges is as in Qwen2's own tokenizer.json."""
        ids = [self.backend.token_to_id(token) for token in QWEN2_SPECIALS]
        parts = (self.backend.normalizer, self.backend.pre_tokenizer, self.backend.decoder)
        return ids == QWEN2_IDS and _states(parts) == _states(_qwen2_parts())


class SentencePieceTokenizer:
    """A SentencePiece unigram model with byte fallback, which keeps whitespace as it is.

    U+2581 stands for a space inside SentencePiece: where a text has one, decoding gives a space.
    The names of its control pieces and of ChatML's marks in a text are those pieces, as with
    Qwen2's special tokens.
    """

    def __init__(self, model: bytes, companions: Companions | None = None) -> None:
        """Takes the bytes of a tokenizer.model, and what is saved beside it.

        Raises:
            ValueError: a model of another kind, e.g. one that changes the text.
        """
        _check_model(model)
        self._model = model
        self.companions = companions or Companions()
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size: int = self._processor.vocab_size()
        self.eos_id: int = self._processor.eos_id()
        self.separator: str = self._processor.id_to_piece(self.eos_id)
        pieces = {self._processor.id_to_piece(i): i for i in self._special_ids()}
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
                pieces = self._processor.encode(part, out_type="proto").pieces
                ids += [piece.id for piece in pieces]
                # The library counts bytes.
                ends = np.cumsum([len(character.encode()) for character in part])
                begins = [piece.begin for piece in pieces]
                places += (start + np.searchsorted(ends, begins, side="right")).tolist()
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
        write(directory / "tokenizer.json", self._fast().to_str(pretty=True).encode())
        write(directory / "tokenizer.model", self._model)
        write_companions(directory, self.companions, self.separator, qwen2=False)

    def _special_ids(self) -> list[int]:
        processor = self._processor
        return [
            self.eos_id,
            *(
                i
                for i in range(self.vocab_size)
                if i != self.eos_id
                and (processor.is_control(i) or processor.id_to_piece(i) in QWEN2_SPECIALS)
            ),
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
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    by_name = {file.name: file for file in files}
    if "tokenizer.model" in by_name:
        try:
            model = by_name["tokenizer.model"].read_bytes()
            return SentencePieceTokenizer(model, read_companions(directory))
        except ValueError:
            if "tokenizer.json" not in by_name:
                raise
    if "tokenizer.json" in by_name:
        backend = _read_backend(by_name["tokenizer.json"])
        companions = read_companions(directory)
        return BytePairTokenizer(backend, _separator(directory, backend, companions), companions)
    if "vocab.json" in by_name or "merges.txt" in by_name:
        return qwen2_tokenizer(*read_merges(directory), read_companions(directory))
    ranks = [file for file in files if file.suffix == ".tiktoken"]
    if ranks:
        return qwen2_tokenizer(*replay_merges(ranks[0]), read_companions(directory))
    raise FileNotFoundError(
        f"{path} holds no tokenizer: give a directory with tokenizer.json, tokenizer.model, "
        "vocab.json and merges.txt, or qwen.tiktoken"
    )


def _read_backend(path: pathlib.Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{path} is no tokenizer.json: {error}") from None


def qwen2_tokenizer(
    vocab: dict[str, int],
    merges: Sequence[tuple[str, str]],
    companions: Companions | None = None,
) -> BytePairTokenizer:
    """Qwen2's tokenizer from its byte-level vocabulary and merges (Qwen2's tokenizer.json)."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = _qwen2_parts()
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in QWEN2_SPECIALS]
    )
    return BytePairTokenizer(backend, companions=companions)


def _qwen2_parts() -> tuple[Any, Any, Any]:
    """Normaliser, pretokeniser and decoder of Qwen2's tokenizer.json."""
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return normalizers.NFC(), pre_tokenizers.Sequence([split, letters]), decoders.ByteLevel()


def _states(parts: Sequence[Any]) -> list[str]:
    """What parts of a tokenizer do to text: offsets are no matter, nor a decoder's options."""
    states = []
    for part in parts:
        state = part.__getstate__().decode() if part is not None else ""
        if isinstance(part, decoders.Decoder):
            state = type(part).__name__
        states.append(re.sub(r'"trim_offsets":(true|false),?', "", state))
    return states


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, directory: str | os.PathLike
) -> SentencePieceTokenizer:
    """Trains a unigram model with byte fallback and saves it in `directory`.

    Whitespace is kept as it is and digits stand alone. The control piece `<|endoftext|>` separates
    documents; ChatML's marks are pieces too. Id 0 is an ordinary piece, as in Qwen2.

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
            user_defined_symbols=["\n", *QWEN2_SPECIALS[1:]],
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


def _separator(
    directory: pathlib.Path, backend: tokenizers.Tokenizer, companions: Companions
) -> str:
    """The document separator: `<|endoftext|>` where there is one, else the directory's eos."""
    if backend.token_to_id(SEPARATOR) is not None:
        return SEPARATOR
    eos = companions.settings.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    if not eos:
        raise ValueError(
            f"{directory}: the tokenizer has neither {SEPARATOR} nor an eos_token in "
            "tokenizer_config.json: name one there"
        )
    return eos


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
