"""The adapter from our tokenizers to SeqIO's Vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seqio
import tensorflow as tf

from marco_jax.tokenizers.tokenizer import Tokenizer


class TokenizerVocabulary(seqio.Vocabulary):
    """A tokenizer as SeqIO sees it. Equal when the tokenizers' vocabularies are.

    SeqIO takes id 0 for padding; here it is an ordinary token. So this vocabulary is used to
    declare and to tokenise, and never with SeqIO's packer or feature converters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wraps a tokenizer; no extra ids."""
        super().__init__(extra_ids=0)
        self.tokenizer = tokenizer

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
            return np.array([i for row in rows for i in row], np.int32), lengths

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
