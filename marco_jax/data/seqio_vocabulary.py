"""The adapter from our tokenizers to SeqIO's Vocabulary.

A module that registers tasks for training writes `run_vocabulary()` into their features: the
tokenizer of whichever run reads them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np
import seqio
import tensorflow as tf

from marco_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer
from marco_jax.tokenizers.tokenizer_files import content_hash

# Directory of the tokenizer, for SeqIO's own tools, which run outside a run.
TOKENIZER_VARIABLE = "MARCO_TOKENIZER"

_run: list[Tokenizer] = []


def set_run_tokenizer(tokenizer: Tokenizer) -> None:
    """Sets the tokenizer that `run_vocabulary` stands for in this process."""
    _run[:] = [tokenizer]


def run_vocabulary() -> TokenizerVocabulary:
    """The vocabulary of the run that reads a task, whatever its tokenizer is.

    Outside a run the environment variable MARCO_TOKENIZER names the tokenizer's directory.
    """
    return TokenizerVocabulary(None)


def same_vocabulary(vocabulary: seqio.Vocabulary, tokenizer: Tokenizer) -> bool:
    """Whether a vocabulary gives the ids of a tokenizer."""
    if isinstance(vocabulary, TokenizerVocabulary):
        return vocabulary.tokenizer.fingerprint == tokenizer.fingerprint
    if not isinstance(vocabulary, seqio.SentencePieceVocabulary) or vocabulary.extra_ids:
        return False
    # The fingerprint of a SentencePiece tokenizer is the hash of its model.
    return content_hash(vocabulary.sp_model) == tokenizer.fingerprint


class TokenizerVocabulary(seqio.Vocabulary):
    """A tokenizer as SeqIO sees it. Equal when the tokenizers' vocabularies are.

    SeqIO takes id 0 for padding; here it is an ordinary token. So this vocabulary is used to
    declare and to tokenise, and never with SeqIO's packer or feature converters.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        """Wraps a tokenizer, or that of the run (None); no extra ids."""
        super().__init__(extra_ids=0)
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            ValueError: it is that of the run, and there is none.
        """
        if self._tokenizer is not None:
            return self._tokenizer
        if not _run and (path := os.environ.get(TOKENIZER_VARIABLE)):
            set_run_tokenizer(load_tokenizer(path))
        if not _run:
            raise ValueError(
                "run_vocabulary() is the tokenizer of a run, and there is no run here: set "
                f"{TOKENIZER_VARIABLE} to a directory with tokenizer files"
            )
        return _run[0]

    @property
    def bos_id(self) -> int | None:
        """None: no BOS is added."""
        return None

    @property
    def eos_id(self) -> int:
        """The token that ends a document."""
        return self.tokenizer.eos_id

    @property
    def unk_id(self) -> int | None:
        """None: every byte has a token."""
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return self.tokenizer.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        return self.encode_batch_tf(tf.expand_dims(s, 0)).flat_values

    def encode_batch_tf(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Ids of each text, int32 [texts, (length)]."""

        def encode(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = self.tokenizer.encode_batch([text.decode("utf-8") for text in texts])
            lengths = np.array([len(row) for row in rows], np.int64)
            ids = itertools.chain.from_iterable(rows)
            return np.fromiter(ids, np.int32, int(lengths.sum())), lengths

        ids, lengths = tf.numpy_function(encode, [texts], (tf.int32, tf.int64))
        ids.set_shape([None])
        lengths.set_shape([None])
        return tf.RaggedTensor.from_row_lengths(ids, lengths)

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(ids: np.ndarray) -> bytes:
            return self.tokenizer.decode(ids.tolist()).encode("utf-8")

        return tf.numpy_function(decode, [ids], tf.string)

    def __eq__(self, other: object) -> bool:
        """Whether both tokenise alike."""
        if not isinstance(other, TokenizerVocabulary):
            return False
        return self.tokenizer.fingerprint == other.tokenizer.fingerprint

    def __hash__(self) -> int:
        """Follows `__eq__`."""
        return hash(self.tokenizer.fingerprint)
