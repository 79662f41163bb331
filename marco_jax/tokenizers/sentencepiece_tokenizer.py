"""SentencePiece unigram models: loading, training, and export to transformers with equal ids."""

from __future__ import annotations

import functools
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from marco_jax.files import as_path, write_bytes
from marco_jax.tokenizers.tokenizer_files import (
    EOS_TOKEN,
    QWEN2_SPECIALS,
    Companions,
    content_hash,
    write_companions,
)

# Longer lines are cut, since SentencePiece's trainer skips lines over 4192 bytes.
_LINE_CHARACTERS = 1000


class SentencePieceTokenizer:
    """A SentencePiece unigram model with byte fallback, which does not change whitespace.

    SentencePiece represents a space by U+2581, so a U+2581 in a text is decoded as a space. The
    names of control pieces and ChatML's marks, such as `<|im_end|>`, are encoded as these pieces
    where they occur in a text, like Qwen2's special tokens. `Tokenizer` describes the methods.
    """

    def __init__(self, model: bytes, companions: Companions | None = None) -> None:
        """Creates a tokenizer from the bytes of a tokenizer.model.

        Raises:
            ValueError: another kind of model, such as one that changes the text.
        """
        # Imported where it is used: Qwen2's tokenizer does not need it.
        import sentencepiece

        _check_model(model)
        self._model = model
        self.companions = companions or Companions()
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size: int = self._processor.vocab_size()
        self.eos_id: int = self._processor.eos_id()
        self.eos_token: str = self._processor.id_to_piece(self.eos_id)
        others = (i for i in range(self.vocab_size) if i != self.eos_id and self._is_special(i))
        self._specials = {self._processor.id_to_piece(i): i for i in (self.eos_id, *others)}
        self._marks = re.compile("(" + "|".join(map(re.escape, self._specials)) + ")")

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the model."""
        return content_hash(self._model)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; names of special tokens in it are encoded as these tokens."""
        ids: list[int] = []
        for part in self._marks.split(unicodedata.normalize("NFC", text)):
            special = self._specials.get(part)
            ids += self._processor.encode(part) if special is None else [special]
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        offsets: list[int] = []
        start = 0
        for part in self._marks.split(text):
            if part in self._specials:
                ids.append(self._specials[part])
                offsets.append(start)
            else:
                pieces = self._processor.encode(part, out_type="proto").pieces
                ids += [piece.id for piece in pieces]
                # The library's offsets are in bytes.
                ends = np.cumsum([len(character.encode()) for character in part])
                begins = [piece.begin for piece in pieces]
                offsets += (start + np.searchsorted(ends, begins, side="right")).tolist()
            start += len(part)
        return ids, offsets

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts, computed on all cores."""
        plain = [unicodedata.normalize("NFC", text) for text in texts]
        return [
            self.encode(text) if self._marks.search(text) else ids
            for text, ids in zip(plain, self._processor.encode(plain), strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; invalid UTF-8 becomes U+FFFD."""
        # The unknown piece never results from a text, but a model may emit it.
        skipped = (*self._specials.values(), self._processor.unk_id())
        return self._processor.decode([int(i) for i in ids if i not in skipped])

    def save(self, directory: str | os.PathLike) -> None:
        """Writes tokenizer.model, and an equal tokenizer.json for transformers."""
        directory = as_path(directory)
        write_bytes(directory / "tokenizer.json", self._fast().to_str(pretty=True).encode())
        write_bytes(directory / "tokenizer.model", self._model)
        write_companions(directory, self.companions, self.eos_token, qwen2=False)

    def _is_special(self, number: int) -> bool:
        processor = self._processor
        return processor.is_control(number) or processor.id_to_piece(number) in QWEN2_SPECIALS

    def _fast(self) -> tokenizers.Tokenizer:
        processor = self._processor
        pieces = [
            (processor.id_to_piece(i), processor.get_score(i)) for i in range(self.vocab_size)
        ]
        unigram = models.Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=True)
        fast = tokenizers.Tokenizer(unigram)
        # SentencePiece represents a space by U+2581; add_dummy_prefix is off.
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


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, directory: str | os.PathLike
) -> SentencePieceTokenizer:
    """Trains a unigram model with byte fallback and saves it in `directory`.

    Whitespace is not changed and each digit is a token. EOS is the control piece `<|endoftext|>`;
    ChatML's marks are pieces, too. Id 0 is an ordinary piece, as in Qwen2.

    Raises:
        ValueError: too little text for a vocabulary of this size.
    """
    import sentencepiece

    lines = (
        line[start : start + _LINE_CHARACTERS]
        for text in texts
        for line in unicodedata.normalize("NFC", text).split("\n")
        for start in range(0, len(line), _LINE_CHARACTERS)
    )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            byte_fallback=True,
            # The rarest characters (mostly Chinese) use byte fallback.
            character_coverage=0.9995,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            # One thread, since scores depend on the order of sums over threads.
            num_threads=1,
            user_defined_symbols=["\n", *QWEN2_SPECIALS[1:]],
            unk_id=1,
            eos_id=2,
            bos_id=-1,
            pad_id=-1,
            eos_piece=EOS_TOKEN,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"tokenizer.vocab_size {vocab_size} does not suit this text: {error}"
        ) from None
    tokenizer = SentencePieceTokenizer(_round_scores(model.getvalue()))
    tokenizer.save(directory)
    return tokenizer


def _round_scores(model: bytes) -> bytes:
    """Rounds a model's scores to so few bits that their sums are exact, in any order and precision.

    Otherwise libraries choose differently between two equally likely segmentations, such as
    ">" + ">>" and ">>" + ">".
    """
    proto = _parse(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * 64) / 64
    return proto.SerializeToString(deterministic=True)


def _check_model(model: bytes) -> None:
    proto = _parse(model)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    changes_text = normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces
    unigram = trainer.model_type == trainer.UNIGRAM and trainer.byte_fallback
    if not unigram or changes_text or normalizer.add_dummy_prefix or trainer.eos_id < 0:
        raise ValueError(
            "tokenizer.model is not a unigram model with byte fallback, identity normalisation, no "
            "dummy prefix and an end-of-sentence piece: give tokenizer.json instead"
        )


def _parse(model: bytes) -> Any:
    """Parses the bytes of a tokenizer.model as a protobuf message."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    try:
        return sentencepiece_model_pb2.ModelProto.FromString(model)
    except DecodeError as error:
        raise ValueError(f"tokenizer.model is not a SentencePiece model: {error}") from None
