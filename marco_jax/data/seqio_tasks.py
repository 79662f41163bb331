"""Sources of a corpus as registered SeqIO tasks, and shares of them as registered mixtures.

Training reads what these tasks give: `prepare.py` writes it to token stores, once. A source "kk" is
the task "marco_kk", a mixture "stage1" the mixture "marco_stage1". Shards of a task are the parts
of its files, so that SeqIO's own tools can share out the work too.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from marco_jax.data.conversations import (
    chat_template,
    has_conversations,
    render_document,
    tokenize_conversation,
)
from marco_jax.data.corpus import Corpus
from marco_jax.data.mixtures import PREFIX, get_mixture, mixture_names
from marco_jax.data.seqio_vocabulary import TokenizerVocabulary
from marco_jax.data.texts import SPLITS, Document, hash_units
from marco_jax.tokenizers.chat_templates import ChatTemplate
from marco_jax.tokenizers.tokenizer import Tokenizer

# Texts that cross between Python and TensorFlow in one call.
_BATCH = 256


def register_task(corpus: Corpus, tokenizer: Tokenizer, source: str) -> seqio.Task:
    """Registers a source: documents in their order -> text -> `tokens`, without EOS.

    Examples have `text`, `language` and `units` too, the hashes that `hash_units` gives; of
    conversations, `loss_mask`, 1 for every token that is trained on. Preferences give two examples
    each, the chosen one first. A task of this name that is registered is replaced.
    """
    # The accelerators are JAX's: TensorFlow would take their memory.
    tf.config.set_visible_devices([], "GPU")
    name = task_name(source)
    seqio.TaskRegistry.remove(name)
    feature = seqio.Feature(TokenizerVocabulary(tokenizer), add_eos=False, dtype=tf.int32)
    features = {"tokens": feature}
    template, tokenize = None, _tokenize
    if has_conversations(corpus, source):
        loss_mask = seqio.PassThroughVocabulary(2)
        features["loss_mask"] = seqio.Feature(loss_mask, add_eos=False, dtype=tf.int32)
        template, tokenize = chat_template(tokenizer), _tokenize_conversations
    return seqio.TaskRegistry.add(
        name,
        source=CorpusDataSource(corpus, source, template),
        preprocessors=[tokenize, seqio.CacheDatasetPlaceholder()],
        output_features=features,
    )


def register_mixture(name: str, rates: Mapping[str, float]) -> seqio.Mixture:
    """Registers the mixture "marco_" + name of registered sources or tasks, by their rates.

    Members of rate 0 are left out; a mixture of this name that is registered is replaced.
    """
    tasks = seqio.TaskRegistry.names()
    members = [
        (task_name(name) if task_name(name) in tasks else name, rate)
        for name, rate in rates.items()
        if rate > 0
    ]
    seqio.MixtureRegistry.remove(PREFIX + name)
    return seqio.MixtureRegistry.add(PREFIX + name, members)


def register_corpus(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Registers all sources of a corpus, and all mixtures of ours that it has sources for."""
    for source in corpus.sources():
        register_task(corpus, tokenizer, source)
    register_corpus_mixtures(corpus)


def register_corpus_mixtures(corpus: Corpus) -> None:
    """Registers the mixtures of ours that a corpus has sources for, by their shares of tokens."""
    for name in mixture_names():
        with contextlib.suppress(ValueError):
            register_mixture(name, get_mixture(name, corpus.infos()).shares)


def task_name(source: str) -> str:
    """The name of a source's task: SeqIO allows letters, digits, ".", ":" and "_"."""
    return PREFIX + re.sub(r"[^\w.:]", "_", source)


class CorpusDataSource(seqio.DataSource):
    """The documents of a source of a corpus, sharded by parts of its files.

    Attributes:
        failure: what ended the reading of documents; TensorFlow raises an error of its own then.
    """

    def __init__(self, corpus: Corpus, source: str, template: ChatTemplate | None = None) -> None:
        """Takes a corpus, the name of a source of it, and the template of conversations."""
        super().__init__(splits=SPLITS, caching_permitted=True)
        self._corpus, self.name, self._template = corpus, source, template
        # What ended the reading of documents.
        self.failure: Exception | None = None

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """No: a shard holds whole parts of files."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """A name for each shard."""
        del split
        return [str(number) for number in range(len(self._corpus.shards(self.name)))]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: Any,
    ) -> tf.data.Dataset:
        """Documents in the order of the corpus; `shuffle` is left to whoever reads them."""
        del shuffle, seed, unused
        shards = self._corpus.shards(self.name)
        chosen = shards[shard_info.index :: shard_info.num_shards] if shard_info else shards
        parts = None if not shard_info and split != "train" else sum(chosen, [])

        def batches() -> Iterator[dict[str, tf.RaggedTensor | list[bytes]]]:
            try:
                documents = iter(self._corpus.documents(self.name, split, parts))
                while batch := list(itertools.islice(documents, _BATCH)):
                    yield self._encode(batch)
            except Exception as error:  # whatever it is, TensorFlow makes another one of it
                self.failure = error
                raise

        text = tf.TensorSpec([None], tf.string)
        ragged = tf.RaggedTensorSpec([None, None], tf.int64, 1, tf.int64)
        signature = {"text": text, "language": text, "units": ragged}
        if self._template:
            signature["spans"] = ragged
        return tf.data.Dataset.from_generator(batches, output_signature=signature).unbatch()

    def _encode(self, documents: Sequence[Document]) -> dict[str, Any]:
        texts = [document.text for document in documents]
        batch: dict[str, Any] = {
            "language": [document.language for document in documents],
            "units": _ragged([hash_units([document]).view(np.int64) for document in documents]),
        }
        if self._template:
            rendered = [render_document(document, self._template) for document in documents]
            texts = [text for text, _ in rendered]
            batch["spans"] = _ragged([np.array(s, np.int64).reshape(-1) for _, s in rendered])
        return batch | {"text": [text.encode() for text in texts]}


def _ragged(rows: Sequence[np.ndarray]) -> tf.RaggedTensor:
    lengths = np.array([len(row) for row in rows], np.int64)
    return tf.RaggedTensor.from_row_lengths(np.concatenate(rows), lengths, validate=False)


def _tokenize(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Text -> `tokens`, many documents a call: SeqIO's own step makes a call for each."""
    vocabulary = output_features["tokens"].vocabulary

    @tf.autograph.experimental.do_not_convert
    def encode(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return batch | {"tokens": vocabulary.encode_batch_tf(batch["text"])}

    return dataset.ragged_batch(_BATCH).map(encode).unbatch()


def _tokenize_conversations(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Text and spans -> `tokens` and `loss_mask`."""
    tokenizer = output_features["tokens"].vocabulary.tokenizer

    def encode(text: bytes, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = [(int(start), int(stop)) for start, stop in spans.reshape(-1, 2)]
        return tokenize_conversation(tokenizer, text.decode(), pairs)

    @tf.autograph.experimental.do_not_convert
    def tokenize(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs = [example.pop("text"), example.pop("spans")]
        tokens, loss_mask = tf.numpy_function(encode, inputs, (tf.int32, tf.int32))
        tokens.set_shape([None])
        loss_mask.set_shape([None])
        return {**example, "tokens": tokens, "loss_mask": loss_mask}

    return dataset.map(tokenize)
