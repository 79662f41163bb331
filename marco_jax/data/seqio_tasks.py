"""Sources as SeqIO tasks, and mixtures in SeqIO's registry, for SeqIO's own tools.

A task gives the same tokens that training reads. Training itself reads token stores (store.py),
which are mixed by index (feed.py).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping

import numpy as np
import seqio
import tensorflow as tf

from marco_jax.data.conversations import (
    chat_template,
    has_conversations,
    render_document,
    task_fingerprint,
    tokenize_conversation,
)
from marco_jax.data.corpus import SPLITS, Corpus
from marco_jax.data.seqio_vocabulary import TokenizerVocabulary
from marco_jax.tokenizers.tokenizer import Tokenizer

# Texts that cross between Python and TensorFlow in one call.
_BATCH = 256


def register_task(corpus: Corpus, tokenizer: Tokenizer, source: str) -> seqio.Task:
    """A source as a task: documents in their order -> text -> `tokens` (no EOS added).

    Conversations are rendered with the tokenizer's chat template and have a `loss_mask` too, 1 for
    every token that is trained on, and their `language`. Preferences give two conversations each,
    the chosen one first.

    Registering the same source and tokenizer again gives the same task.
    """
    # The accelerators are JAX's: TensorFlow would take their memory.
    tf.config.set_visible_devices([], "GPU")
    name = task_name(corpus, tokenizer, source)
    if name not in seqio.TaskRegistry.names():
        feature = seqio.Feature(TokenizerVocabulary(tokenizer), add_eos=False, dtype=tf.int32)
        features = {"tokens": feature}
        read, tokenize = _documents(corpus, source), _tokenize
        if has_conversations(corpus, source):
            loss_mask = seqio.PassThroughVocabulary(2)
            features["loss_mask"] = seqio.Feature(loss_mask, add_eos=False, dtype=tf.int32)
            read = _conversations(corpus, source, chat_template(tokenizer))
            tokenize = _tokenize_conversations
        seqio.TaskRegistry.add(
            name, source=read, preprocessors=[tokenize], output_features=features
        )
    return seqio.TaskRegistry.get(name)


def register_mixture(
    name: str, corpus: Corpus, tokenizer: Tokenizer, rates: Mapping[str, float]
) -> seqio.Mixture:
    """A mixture of the corpus' tasks with one rate a source; sources of rate 0 are left out."""
    members = [
        (register_task(corpus, tokenizer, source).name, rate)
        for source, rate in rates.items()
        if rate > 0
    ]
    full_name = f"marco_mixture_{name}_{tokenizer.fingerprint[:8]}"
    if full_name in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.remove(full_name)
    return seqio.MixtureRegistry.add(full_name, members)


def task_name(corpus: Corpus, tokenizer: Tokenizer, source: str) -> str:
    """A registry name that changes with the source's documents and the tokenizer."""
    name = re.sub(r"[^\w.-]", "_", source)
    fingerprint = task_fingerprint(corpus, tokenizer, source)
    return f"marco_{name}_{fingerprint[:8]}_{tokenizer.fingerprint[:8]}"


def _documents(corpus: Corpus, source: str) -> seqio.FunctionDataSource:
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # the order is the corpus'; packed.py shuffles by index

        def texts() -> Iterator[list[bytes]]:
            documents = iter(corpus.documents(source, split))
            while batch := [d.text.encode() for d in itertools.islice(documents, _BATCH)]:
                yield batch

        signature = tf.TensorSpec([None], tf.string)
        rows = tf.data.Dataset.from_generator(texts, output_signature=signature)
        return rows.unbatch().map(lambda text: {"text": text})

    return seqio.FunctionDataSource(dataset, splits=list(SPLITS))


def _tokenize(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Text -> `tokens`, many documents a call: SeqIO's own step makes a call for each."""
    vocabulary = output_features["tokens"].vocabulary
    rows = dataset.batch(_BATCH).map(lambda examples: vocabulary.encode_batch_tf(examples["text"]))
    return rows.unbatch().map(lambda ids: {"tokens": ids})


def _conversations(corpus: Corpus, source: str, template: str) -> seqio.FunctionDataSource:
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed

        def rendered() -> Iterator[dict[str, bytes]]:
            for document in corpus.documents(source, split):
                text, spans = render_document(document, template)
                fields = {"text": text, "spans": json.dumps(spans), "language": document.language}
                yield {name: value.encode() for name, value in fields.items()}

        signature = {name: tf.TensorSpec([], tf.string) for name in ("text", "spans", "language")}
        return tf.data.Dataset.from_generator(rendered, output_signature=signature)

    return seqio.FunctionDataSource(dataset, splits=list(SPLITS))


def _tokenize_conversations(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Text and spans -> `tokens` and `loss_mask`."""
    tokenizer = output_features["tokens"].vocabulary.tokenizer

    def encode(text: bytes, spans: bytes) -> tuple[np.ndarray, np.ndarray]:
        return tokenize_conversation(tokenizer, text.decode(), json.loads(spans))

    def tokenize(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs = [example["text"], example["spans"]]
        tokens, loss_mask = tf.numpy_function(encode, inputs, (tf.int32, tf.int32))
        tokens.set_shape([None])
        loss_mask.set_shape([None])
        return {"tokens": tokens, "loss_mask": loss_mask, "language": example["language"]}

    return dataset.map(tokenize)
