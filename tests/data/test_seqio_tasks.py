"""SeqIO's side: vocabulary, tasks, mixtures; and what is kept of them on disk."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import seqio
import tensorflow as tf

from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import get_mixture
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.seqio_tasks import register_mixture, register_task
from marco_jax.data.seqio_vocabulary import TokenizerVocabulary
from marco_jax.data.texts import HELD_OUT, TRAIN
from marco_jax.tokenizers.tokenizer import train_sentencepiece


def ids_of(task: seqio.Task, split: str) -> list[list[int]]:
    dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False)
    return [example["tokens"].tolist() for example in dataset.as_numpy_iterator()]


def test_a_task_gives_the_tokenizers_ids_of_each_document(small_corpus, tokenizer):
    for source in small_corpus.sources():
        task = register_task(small_corpus, tokenizer, source)
        for split in (TRAIN, HELD_OUT):
            texts = [document.text for document in small_corpus.documents(source, split)]
            assert ids_of(task, split) == tokenizer.encode_batch(texts)


@pytest.mark.parametrize("kind", ["chat", "preference"])
def test_a_task_of_conversations_gives_what_a_store_of_them_holds(kind, tmp_path):
    texts = ["қадам жаңа мәтін оқиды", "the run saves its state"]
    tokenizer = train_sentencepiece(texts * 20, 286, tmp_path / "tokenizer")
    asked = {"role": "user", "content": "мәтін?"}
    answered = [asked, {"role": "assistant", "content": "оқиды"}, asked]
    rows = {
        "chat": {"messages": [*answered, {"role": "assistant", "content": "the run"}]},
        "preference": {"prompt": answered, "chosen": "state", "rejected": "жаңа"},
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[kind] | {"language": "kk"}))
    source = {"name": "rows", "kind": kind, "files": "rows.jsonl", "held_out": 0.0}
    (tmp_path / "data.json").write_text(json.dumps({"sources": [source]}))
    corpus = load_corpus(str(tmp_path / "data.json"), seed=0)
    task = register_task(corpus, tokenizer, "rows")
    dataset = task.get_dataset(sequence_length=None, split=TRAIN, shuffle=False)
    store = prepare_stores(corpus, tokenizer, ["rows"], tmp_path / "cache")["rows"]
    given = list(dataset.as_numpy_iterator())
    assert len(given) == len(store.lengths) == {"chat": 1, "preference": 2}[kind]
    for document, example in enumerate(given):
        np.testing.assert_array_equal(example["tokens"], store.read(document, 0, 1 << 20))
        np.testing.assert_array_equal(example["loss_mask"], store.read_loss_mask(document))
        learnt = tokenizer.encode("оқиды<|im_end|>the run<|im_end|>")
        if kind == "chat":
            found = example["tokens"][example["loss_mask"] == 1].tolist()
            assert tokenizer.decode(found) == tokenizer.decode(learnt)
            assert found.count(tokenizer.encode("<|im_end|>")[0]) == 2
    assert store.languages == ("kk",)


def test_tasks_are_in_seqios_registry_and_may_be_registered_again(small_corpus, tokenizer):
    for source in small_corpus.sources():
        register_task(small_corpus, tokenizer, source)
        task = register_task(small_corpus, tokenizer, source)
        assert task.name == f"marco_{source}"
        assert seqio.get_mixture_or_task(task.name) is task


def test_vocabularies_are_equal_when_their_tokenizers_are(tokenizer):
    class Other(type(tokenizer)):
        fingerprint = "07e407e407e407e4"

    vocabulary = TokenizerVocabulary(tokenizer)
    assert vocabulary == TokenizerVocabulary(type(tokenizer)())
    assert vocabulary != TokenizerVocabulary(Other())
    assert vocabulary.vocab_size == 257 and vocabulary.eos_id == 256
    assert vocabulary.encode("!a") == [0, 64]
    assert vocabulary.encode_tf("!a").numpy().tolist() == [0, 64]
    assert vocabulary.decode([0, 64]) == "!a"
    assert vocabulary.decode_tf(tf.constant([0, 64])).numpy() == b"!a"


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_mixture_rates_are_those_of_table_2(small_corpus, tokenizer, name):
    shares = get_mixture(name, small_corpus.infos()).shares
    for source in shares:
        register_task(small_corpus, tokenizer, source)
    mixture = register_mixture(name, shares)
    assert seqio.get_mixture_or_task(f"marco_{name}") is mixture
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    given = {f"marco_{source}": share for source, share in shares.items() if share}
    assert rates == pytest.approx(given)


def test_a_store_holds_what_its_task_gives(small_corpus, tokenizer, tmp_path):
    for name, store in prepare_stores(
        small_corpus, tokenizer, small_corpus.sources(), tmp_path
    ).items():
        expected = ids_of(register_task(small_corpus, tokenizer, name), TRAIN)
        documents = [store.read(n, 0, length).tolist() for n, length in enumerate(store.lengths)]
        assert documents == expected


def test_corpus_and_mixtures_import_neither_tensorflow_nor_django():
    code = (
        "import sys; from marco_jax.data import load, feed, mixtures; load.load_corpus();"
        "print({'tensorflow', 'seqio', 'django', 'allauth', 'rest_framework'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr
    assert result.stderr == ""


def test_tokenising_is_quiet(tmp_path):
    code = f"""
from marco_jax.data.corpus import Corpus
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.sources import Input, Source
class T:
    vocab_size, eos_id, fingerprint = 256, 10, "t"
    def encode_batch(self, texts): return [list(text.encode()) for text in texts]
records = tuple({{"text": f"text {{n}}"}} for n in range(50))
corpus = Corpus([Source("kk", "text", (Input(records=records),), "kk")])
prepare_stores(corpus, T(), ["kk"], {str(tmp_path)!r})
"""
    # As the command line sets it: TensorFlow looks for a GPU, and reports that there is none.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
