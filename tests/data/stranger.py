"""A stranger's own SeqIO module: three tasks of three kinds of sources, and a nested mixture."""

import json
import pathlib
import random

WORDS = {
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін тоқтайды",
    "en": "the run saves its state and the next step reads a new batch of text",
}

MODULE = """
import json, pathlib
import seqio, tensorflow as tf
from marco_jax.data.seqio_vocabulary import run_vocabulary

HERE = pathlib.Path({folder!r})
FEATURES = {{"targets": seqio.Feature(run_vocabulary(), add_eos=True)}}

@seqio.map_over_dataset
def parse(line):
    text = tf.numpy_function(lambda line: json.loads(line)["body"].encode(), [line], tf.string)
    text.set_shape([])
    return {{"targets": text}}

@seqio.map_over_dataset
def rename(example):
    return {{"targets": example["text"]}}

@seqio.map_over_dataset
def pair(line):
    sides = tf.strings.split(line, "\\t")
    return {{"targets": "English: " + sides[0] + "\\nKazakh: " + sides[1]}}

END = [
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos,
]
seqio.TaskRegistry.add(
    "{name}_kk",
    source=seqio.TextLineDataSource({{"train": str(HERE / "kk-*.jsonl")}}),
    preprocessors=[parse, *END], output_features=FEATURES)
seqio.TaskRegistry.add(
    "{name}_en",
    source=seqio.TfdsDataSource("english:1.0.0", tfds_data_dir=str(HERE / "tfds")),
    preprocessors=[rename, *END], output_features=FEATURES)
seqio.TaskRegistry.add(
    "{name}_pairs",
    source=seqio.TextLineDataSource({{"train": str(HERE / "pairs.tsv")}}),
    preprocessors=[pair, *END], output_features=FEATURES)

@seqio.map_over_dataset
def ask(line):
    sides = tf.strings.split(line, "\\t")
    return {{"inputs": sides[0], "targets": sides[1]}}

def close(targets, predictions):
    right = sum(len(x) >= len(y) for x, y in zip(targets, predictions, strict=True))
    return {{"no_longer": right / len(targets), "mean_words": len(targets[0])}}

seqio.TaskRegistry.add(
    "{name}_asks",
    source=seqio.TextLineDataSource({{"validation": str(HERE / "pairs.tsv")}}),
    preprocessors=[ask, *END], postprocess_fn=lambda text, **_: text.split(),
    metric_fns=[close],
    output_features={{n: seqio.Feature(run_vocabulary()) for n in ("inputs", "targets")}})
seqio.MixtureRegistry.add("{name}_texts", [("{name}_kk", 3), ("{name}_en", lambda task: 1.0)])
seqio.MixtureRegistry.add("{name}_mixture", [("{name}_texts", 0.8), ("{name}_pairs", 0.2)])
"""


def texts(language: str, count: int, seed: int) -> list[str]:
    """Sentences of random words."""
    rng = random.Random(f"{language} {seed}")
    words = WORDS[language].split()
    return [" ".join(rng.choices(words, k=rng.randint(4, 30))) for _ in range(count)]


def make(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Writes the data, a TFDS folder among it, and the module; returns the module's path."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    for number in range(3):
        rows = [{"body": text} for text in texts("kk", 200, number)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"kk-{number}.jsonl").write_text(lines, encoding="utf-8")
    both = zip(texts("en", 200, 9), texts("kk", 200, 9), strict=True)
    (folder / "pairs.tsv").write_text("".join(f"{x}\t{y}\n" for x, y in both), encoding="utf-8")
    splits = {
        split: tf.data.Dataset.from_tensor_slices({"text": texts("en", count, 5)[skip:]})
        for split, count, skip in (("train", 260, 0), ("validation", 300, 260))
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="english",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets=splits,
        data_dir=str(folder / "tfds"),
        disable_shuffling=True,
    )
    module = folder / f"{name}.py"
    module.write_text(MODULE.format(folder=str(folder), name=name), encoding="utf-8")
    return module
