"""Sources as SeqIO tasks, and mixtures in SeqIO's registry.

SeqIO is the language in which sources, preprocessing and rates are declared. The order of training
is not left to it: a task is materialised once (store.py) and mixed by index (feed.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import seqio
import tensorflow as tf

from marco_jax.data.corpus import SPLITS, Corpus
from marco_jax.data.vocabulary import TokenizerVocabulary
from marco_jax.tokenizer import Tokenizer


def register_tasks(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, seqio.Task]:
    """A task a source: documents in their order -> text -> `tokens` (no separator added).

    Registering the same corpus and tokenizer again gives the same tasks.
    """
    # The accelerators are JAX's: TensorFlow would take their memory.
    tf.config.set_visible_devices([], "GPU")
    vocabulary = TokenizerVocabulary(tokenizer)
    tasks = {}
    for source in corpus.sources():
        name = task_name(corpus, tokenizer, source)
        if name not in seqio.TaskRegistry.names():
            seqio.TaskRegistry.add(
                name,
                source=_documents(corpus, source),
                preprocessors=[_tokenize],
                output_features={
                    "tokens": seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
                },
            )
        tasks[source] = seqio.TaskRegistry.get(name)
    return tasks


def register_mixture(
    name: str, corpus: Corpus, tokenizer: Tokenizer, rates: Mapping[str, float]
) -> seqio.Mixture:
    """A mixture of the corpus' tasks with one rate a source; sources of rate 0 are left out."""
    tasks = register_tasks(corpus, tokenizer)
    members = [(tasks[source].name, rate) for source, rate in rates.items() if rate > 0]
    full_name = task_name(corpus, tokenizer, f"mixture_{name}")
    if full_name in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.remove(full_name)
    return seqio.MixtureRegistry.add(full_name, members)


def task_name(corpus: Corpus, tokenizer: Tokenizer, source: str) -> str:
    """A registry name that changes with the corpus and the tokenizer."""
    return f"marco_{source}_{corpus.fingerprint[:8]}_{tokenizer.fingerprint[:8]}"


def _documents(corpus: Corpus, source: str) -> seqio.FunctionDataSource:
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # the order is the corpus'; feed.py shuffles by index
        texts = [document.text for document in corpus.documents(source, split)]
        return tf.data.Dataset.from_tensor_slices({"text": tf.constant(texts, tf.string)})

    counts = {split: len(corpus.documents(source, split)) for split in SPLITS}
    splits = [split for split in SPLITS if counts[split]]
    return seqio.FunctionDataSource(dataset, splits=splits, num_input_examples=counts)


def _tokenize(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Text -> `tokens`, many documents a call: SeqIO's own step makes a call for each."""
    vocabulary = output_features["tokens"].vocabulary
    rows = dataset.batch(256).map(lambda examples: vocabulary.encode_batch_tf(examples["text"]))
    return rows.unbatch().map(lambda ids: {"tokens": ids})
