"""Every benchmark in every layout it is published in: the same items make the same prompts."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from marco_jax.evaluation import benchmarks
from marco_jax.evaluation.contamination import _items
from tests.evaluation.benchmarks.exam_releases import EXAMS, OTHER_CHOICES
from tests.evaluation.benchmarks.releases import jsonl
from tests.evaluation.benchmarks.text_releases import RANKED, TRANSLATION, WRITTEN

RELEASES = [*EXAMS, *OTHER_CHOICES, *RANKED, *WRITTEN, *TRANSLATION]

NUMBERED = [
    pytest.param(release, id=f"{release.task}-{number}") for number, release in enumerate(RELEASES)
]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def shown(release, data_dir):
    """What each prompt says and what is right, with and without shots."""
    found = [
        prompt
        for shots in dict.fromkeys((release.shots, 0))
        for prompt in benchmarks.prompts(
            release.task, release.language, data_dir, shots=shots, split=None
        )
    ]
    assert found[0].context.endswith(release.asks)
    assert (found[0].golds or found[0].references) == release.answer
    return [(prompt.context, prompt.choices, prompt.golds, prompt.references) for prompt in found]


def authors_files(release, folder):
    for name, text in release.authors.items():
        write(folder / name, text)


def snapshot(release, folder):
    """A snapshot of the hub's repository, with Parquet files."""
    for (config, split), rows in release.hub.items():
        path = folder / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def converted(release, folder):
    """The files of the hub's own conversion, its branch refs/convert/parquet."""
    for (config, split), rows in release.hub.items():
        path = folder / config / split / "0000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def saved(release, folder):
    """Each config as `datasets` saves it, with a cache file beside the data."""
    datasets = pytest.importorskip("datasets")
    for config in {config for config, _ in release.hub}:
        splits = {
            split: datasets.Dataset.from_list(rows)
            for (name, split), rows in release.hub.items()
            if name == config
        }
        datasets.DatasetDict(splits).save_to_disk(folder / config)
    for split in folder.rglob("state.json"):
        (split.parent / "cache-0123456789abcdef.arrow").write_bytes(b"not part of the dataset")


def lines(release, folder):
    for (config, split), rows in release.hub.items():
        write(folder / config / f"{split}.jsonl", jsonl(rows))


def features(tfds, name):
    """The features that TFDS's builder of a dataset declares."""
    text = tfds.features.Text()
    if name.startswith("ai2_arc"):
        label = tfds.features.ClassLabel(names=list("ABCDE"))
        choices = tfds.features.Sequence({"text": text, "label": label})
        found = {"id": text, "question": text, "choices": choices, "answerKey": label}
    elif name == "xnli":
        languages = ("de", "en")
        found = {
            "premise": tfds.features.Translation(languages=languages),
            "hypothesis": tfds.features.TranslationVariableLanguages(languages=languages),
            "label": tfds.features.ClassLabel(names=["entailment", "neutral", "contradiction"]),
        }
    elif name.startswith("paws_x"):
        label = tfds.features.ClassLabel(num_classes=2)
        found = {"sentence1": text, "sentence2": text, "label": label}
    elif name.startswith("wmt16"):
        return tfds.features.Translation(languages=("de", "en"))
    else:
        answers = tfds.features.Sequence({"text": text, "answer_start": np.int32})
        found = {"id": text, "title": text, "context": text, "question": text, "answers": answers}
    return tfds.features.FeaturesDict(found)


def prepared(release, folder):
    """A prepared TFDS folder."""
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")
    name, splits = release.tfds
    declared = features(tfds, name)
    folder = folder / name / "1.0.0"
    folder.mkdir(parents=True)
    dataset = name.split("/")[0]
    for split, rows in splits.items():
        path = folder / f"{dataset}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in rows:
                row = {key: value for key, value in row.items() if key in declared}
                if "hypothesis" in row:
                    pair = row["hypothesis"]
                    texts = dict(zip(pair["language"], pair["translation"], strict=True))
                    row["hypothesis"] = texts
                if "choices" in row:
                    # The builder gives numbers the letters' names.
                    row = _lettered(row)
                writer.write(declared.serialize_example(row))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=declared,
        split_infos=[
            tfds.core.SplitInfo(name=split, shard_lengths=[len(rows)], num_bytes=0)
            for split, rows in splits.items()
        ],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
    )


def _lettered(row):
    letters = dict(zip("12345", "ABCDE", strict=True))
    labels = [letters.get(label, label) for label in row["choices"]["label"]]
    key = row["answerKey"]
    choices = row["choices"] | {"label": labels}
    return row | {"choices": choices, "answerKey": letters.get(key, key)}


LAYOUTS = [authors_files, snapshot, converted, saved, lines, prepared]


def layouts(release):
    found = [authors_files] if release.authors else []
    found += [snapshot, converted, saved, lines] if release.hub else []
    return found + ([prepared] if release.tfds else [])


@pytest.mark.parametrize("release", NUMBERED)
def test_all_layouts_make_the_same_prompts(tmp_path, release):
    folder = benchmarks.get_benchmark(release.task).folder
    first = None
    for layout in layouts(release):
        data_dir = tmp_path / layout.__name__
        layout(release, data_dir / folder)
        found = shown(release, data_dir)
        first = first or found
        assert found == first, layout.__name__
        # The folder itself is a data directory, too.
        assert shown(release, data_dir / folder) == first
        # The contamination check reads the same items.
        searched = list(_items([release.task], str(data_dir), [release.language], None))
        assert len(searched) == len(first) // len({0, release.shots})
        assert all(texts for _, _, _, texts, _ in searched)


def test_releases_of_one_benchmark_agree(tmp_path):
    seen = {}
    for number, release in enumerate(RELEASES):
        layout = layouts(release)[0]
        layout(release, tmp_path / str(number) / benchmarks.get_benchmark(release.task).folder)
        found = list(
            benchmarks.prompts(release.task, release.language, tmp_path / str(number), shots=0)
        )
        contexts = [(prompt.context, prompt.choices, prompt.golds) for prompt in found]
        assert seen.setdefault(release.task, contexts) == contexts


def test_every_benchmark_has_a_release():
    """Translation from and into English reads the same files as translation between any two."""
    tried = {release.task for release in RELEASES}
    others = {f"{task}_{side}" for task in tried for side in ("from_en", "to_en")}
    assert set(benchmarks.BENCHMARKS) <= tried | others
