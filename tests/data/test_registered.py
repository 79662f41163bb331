"""Tasks and mixtures in SeqIO's registry: ours, and those of a stranger's own module."""

import numpy as np
import pytest
import seqio

from marco_jax.data.corpus import Corpus
from marco_jax.data.mixtures import get_mixture
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.seqio_tasks import register_corpus, task_name
from marco_jax.data.seqio_vocabulary import TokenizerVocabulary, same_vocabulary
from marco_jax.data.task_info import HELD_OUT_FILE, Request, TaskOptions
from marco_jax.data.texts import TRAIN
from marco_jax.data.workers import Context, Workers
from marco_jax.files import read_json_lines
from tests.data import stranger

DESCRIBE = "marco_jax.data.registered:describe"


def described(corpus, tokenizer, modules, *names, **options):
    request = Request(names, (), TaskOptions(**options))
    with Workers(0, Context(corpus, tokenizer, tuple(map(str, modules)))) as workers:
        ((_, found),) = workers.map(DESCRIBE, [request])
    return found


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return stranger.make(tmp_path_factory.mktemp("stranger"), "strange")


def test_a_mixture_of_ours_gives_the_documents_that_training_reads(
    small_corpus, tokenizer, cache_dir
):
    register_corpus(small_corpus, tokenizer)
    mixture = seqio.get_mixture_or_task("marco_stage1")
    shares = get_mixture("stage1", small_corpus.infos()).shares
    assert {t.source.name: mixture.get_rate(t) for t in mixture.tasks} == pytest.approx(shares)
    stores = prepare_stores(small_corpus, tokenizer, small_corpus.sources(), cache_dir)
    everything = set()
    for name, store in stores.items():
        read = [store.read(n, 0, 1 << 20).tolist() for n in range(len(store.lengths))]
        task = seqio.TaskRegistry.get(task_name(name))
        dataset = task.get_dataset(None, split=TRAIN, shuffle=False)
        assert [example["tokens"].tolist() for example in dataset.as_numpy_iterator()] == read
        everything |= set(map(tuple, read))
    mixed = mixture.get_dataset(None, split=TRAIN, shuffle=False, num_epochs=1)
    drawn = [tuple(example["tokens"].tolist()) for example in mixed.as_numpy_iterator()]
    assert len(drawn) > 100 and set(drawn) <= everything


def test_a_strangers_nested_mixture_is_described(tokenizer, module):
    found = described(Corpus([]), tokenizer, [module], "strange_mixture")
    rates = {"strange_kk": 0.6, "strange_en": 0.2, "strange_pairs": 0.2}
    assert found.rates["strange_mixture"] == pytest.approx(rates)
    tasks = {task.name: task for task in found.tasks}
    assert tasks["strange_kk"].shards == 3 and len(tasks["strange_kk"].files) == 3
    assert tasks["strange_en"].held_out_split == "validation" and tasks["strange_en"].files
    assert not tasks["strange_kk"].held_out_split


def test_a_strangers_tasks_are_tokenised_by_their_preprocessors(tokenizer, module, tmp_path):
    corpus = Corpus([])
    found = described(corpus, tokenizer, [module], "strange_mixture")
    stores = prepare_stores(corpus, tokenizer, [], tmp_path, tasks=found.tasks)
    kk = [text for number in range(3) for text in stranger.texts("kk", 200, number)]
    store = stores["strange_kk"]
    read = [tokenizer.decode(store.read(n, 0, 1 << 20)) for n in range(len(store.lengths))]
    held_out = [row["text"] for row in read_json_lines(store.directory / HELD_OUT_FILE)]
    # EOS is left to packing; what a task holds out itself is not trained on.
    assert sorted([*read, *held_out]) == sorted(kk)
    assert 0 < len(held_out) < 20
    en = stores["strange_en"]
    assert len(en.lengths) == 260
    validation = [row["text"] for row in read_json_lines(en.directory / HELD_OUT_FILE)]
    assert validation == stranger.texts("en", 300, 5)[260:]
    pairs = stores["strange_pairs"]
    assert tokenizer.decode(pairs.read(0, 0, 1 << 20)).startswith("English: ")
    again = prepare_stores(corpus, tokenizer, [], tmp_path, tasks=found.tasks)
    assert {n: s.directory for n, s in again.items()} == {n: s.directory for n, s in stores.items()}


def test_a_change_of_code_or_data_makes_another_store(tokenizer, tmp_path):
    corpus = Corpus([])
    module = stranger.make(tmp_path, "changed")
    directories = []
    for change in ("", "# another line\n", "data"):
        if change == "data":
            with (tmp_path / "kk-1.jsonl").open("a") as file:
                file.write('{"body": "more"}\n')
        else:
            copy = tmp_path / f"module{len(directories)}.py"
            text = module.read_text().replace("changed_", f"changed{len(directories)}_")
            copy.write_text(text + change)
        found = described(corpus, tokenizer, [copy], f"changed{min(len(directories), 1)}_kk")
        stores = prepare_stores(corpus, tokenizer, [], tmp_path / "cache", tasks=found.tasks)
        directories.append(next(iter(stores.values())).directory)
    assert len(set(directories)) == 3


def add_task(name, **changes):
    def lines(split, shuffle_files):
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices({"targets": ["one", "two"]})

    options = {
        "source": seqio.FunctionDataSource(lines, splits=["train"]),
        "preprocessors": [seqio.preprocessors.tokenize],
        "output_features": {"targets": seqio.Feature(TokenizerVocabulary(None), add_eos=False)},
    }
    seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(name, **(options | changes))


BYTES = {"targets": seqio.Feature(seqio.ByteVocabulary(), add_eos=False)}
OTHERS = {
    name: seqio.Feature(TokenizerVocabulary(None), add_eos=False) for name in ("question", "answer")
}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"split": "test"}, "has no split 'test', it has train: set mixture.tasks.split"),
        ({"output_features": BYTES}, {}, "is not the run's tokenizer"),
        ({"output_features": OTHERS}, {}, "has the features answer, question"),
    ],
)
def test_a_task_that_cannot_be_trained_on_is_one_line(tokenizer, changes, options, message):
    add_task("refused", **changes)
    with pytest.raises(ValueError) as error:
        described(Corpus([]), tokenizer, [], "refused", **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_names_rates_and_modules_that_fail_are_one_line(tokenizer, tmp_path):
    add_task("fails")
    seqio.MixtureRegistry.remove("failing")
    seqio.MixtureRegistry.add("failing", [("fails", lambda task: 1 / 0)])
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    for modules, name, message in (
        ([], "failz", "'failz' is not registered: did you mean 'fails'?"),
        ([], "failing", "the rate of 'fails' cannot be computed: ZeroDivisionError"),
        ([broken], "fails", "cannot be imported: ModuleNotFoundError"),
    ):
        with pytest.raises(ValueError) as error:
            described(Corpus([]), tokenizer, modules, name)
        assert message in str(error.value) and "\n" not in str(error.value)


def test_prompts_end_in_eos_and_are_trained_on_their_targets(tokenizer, tmp_path):
    features = {
        name: seqio.Feature(TokenizerVocabulary(None), add_eos=True)
        for name in ("inputs", "targets")
    }

    def rows(split, shuffle_files):
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices({"inputs": ["!ask"], "targets": ["say!"]})

    add_task(
        "asks",
        source=seqio.FunctionDataSource(rows, splits=["train"]),
        preprocessors=[seqio.preprocessors.tokenize_and_append_eos],
        output_features=features,
    )
    found = described(Corpus([]), tokenizer, [], "asks")
    options = TaskOptions(held_out=0.0)
    stores = prepare_stores(Corpus([]), tokenizer, [], tmp_path, tasks=found.tasks, options=options)
    store = stores["asks"]
    ids = [*tokenizer.encode("!asksay!"), tokenizer.eos_id]
    np.testing.assert_array_equal(store.read(0, 0, 99), ids)
    np.testing.assert_array_equal(store.read_loss_mask(0), [0] * 4 + [1] * 5)


def test_the_vocabulary_of_the_runs_own_sentencepiece_model_is_taken(tmp_path):
    from marco_jax.tokenizers.tokenizer import train_sentencepiece

    own = train_sentencepiece(stranger.texts("kk", 200, 0), 300, tmp_path / "a")
    path = str(tmp_path / "a" / "tokenizer.model")
    assert same_vocabulary(seqio.SentencePieceVocabulary(path), own)
    assert not same_vocabulary(seqio.SentencePieceVocabulary(path, extra_ids=10), own)
    other = train_sentencepiece(stranger.texts("en", 200, 0), 300, tmp_path / "b")
    assert not same_vocabulary(seqio.SentencePieceVocabulary(path), other)
