"""Runs transforms on documents in one process."""

import collections
import json
import pathlib

import apache_beam as beam
import pytest


@pytest.fixture
def run(tmp_path):
    """Applies a transform to elements; returns its outputs by name, "" for a single one."""

    def apply(transform, elements, outputs=("kept", "rejected")):
        folder = tmp_path / f"outputs{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        kept = collections.defaultdict(list)

        def keep(value, name):
            with (folder / f"{name}.pickle.txt").open("a") as file:
                print(json.dumps(_plain(value)), file=file)

        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            found = pipeline | beam.Create(elements) | transform
            for name in outputs or ("",):
                collection = found[name] if name else found
                collection | f"keep {name}" >> beam.Map(keep, name)
        for path in pathlib.Path(folder).glob("*"):
            kept[path.name.partition(".")[0]] = [*map(json.loads, path.read_text().splitlines())]
        return kept if outputs else kept[""]

    return apply


def _plain(value):
    if hasattr(value, "to_state"):
        return value.to_state()
    return value.tolist() if hasattr(value, "tolist") else value
