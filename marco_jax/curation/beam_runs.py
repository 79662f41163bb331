"""Runs the phases of curation: one after another on this machine, or as one pipeline elsewhere.

On this machine each phase is a Beam pipeline of its own. Its collections are stored in the work
directory, so a run that was killed goes on after the last phase that ended, and texts never lie in
the memory of the runner. Other runners get all phases as one pipeline: they store and recover what
passes between workers by their own means.
"""

from __future__ import annotations

import functools
import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from marco_jax.curation.beam_files import file_exists, is_beam_url, read_json_value, write_whole
from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.corpus_writer import MergeTallies
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.grouping import PackDocuments, read_documents
from marco_jax.curation.pipeline import PHASES, RESULTS, Collections, Job
from marco_jax.extras import optional
from marco_jax.files import write_text
from marco_jax.runtime.progress import Progress

with optional():
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

# The runner of this machine.
LOCAL = "local"
# Beam's workers log each of their steps, whatever the options say; errors reach the caller anyway.
_WORKER = (
    "import logging, sys; logging.disable(logging.CRITICAL); "
    "from apache_beam.runners.worker.sdk_worker_main import main; main(sys.argv)"
)
# Collections of documents, of which the store of a phase keeps the texts.
_TEXTS = ("documents", "pairs")

Results = dict[str, list[Any]]


def run_in_phases(job: Job, work: pathlib.Path, workers: int) -> Results:
    """Runs the phases on this machine; returns the results of all phases.

    Args:
        job: what to do; `job.pieces` must be a folder.
        work: the directory of all that is stored until the corpus is written.
        workers: number of processes.
    """
    results: Results = {name: [] for name in RESULTS}
    stored: dict[str, list[Any]] = {"pieces": []}
    folders: dict[str, pathlib.Path] = {}
    for name in PHASES:
        folder = work / name
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            if name == "finish" and not is_beam_url(job.final):
                # What was written when the run was killed.
                shutil.rmtree(job.final, ignore_errors=True)
            with Progress(f"curating, {name}"):
                outputs = _run_phase(name, job, folder, stored, workers)
            shutil.rmtree(folder / "shuffled", ignore_errors=True)
            write_text(folder / "done", "\n".join(outputs))
        # A collection without elements has no file.
        found = dict.fromkeys((folder / "done").read_text().split(), []) | {
            path.stem: _read_items(path) for path in folder.glob("*.json")
        }
        for output in RESULTS:
            results[output] += found.pop(output, [])
        stored["pieces"] += found.pop("pieces", [])
        stored |= found
        for output in set(_TEXTS) & found.keys():
            # The texts that this phase has replaced are not read again.
            if output in folders:
                shutil.rmtree(folders[output], ignore_errors=True)
            folders[output] = folder / output
    return results


def run_chained(job: Job, work: str, runner: Any, options: Sequence[str]) -> Results:
    """Runs all phases as one pipeline of a Beam runner; returns the results of all phases.

    Args:
        job: what to do.
        work: a directory that all workers can write to, local or of an object store.
        runner: the name of a runner, or one.
        options: Beam's, such as "--dask_client_address=...".
    """
    pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(list(options)))
    chain_phases(pipeline, job, work)
    with Progress("curating"):
        pipeline.run().wait_until_finish()
    files = {name: f"{work}/{name}.json" for name in RESULTS}
    results = {name: _read_items(file) for name, file in files.items()}
    FileSystems.delete([file for file in files.values() if file_exists(file)])
    return results


def chain_phases(pipeline: beam.Pipeline, job: Job, work: str) -> None:
    """Adds all phases to a pipeline, which writes their results to files of `work`."""
    results: dict[str, list[Any]] = {name: [] for name in RESULTS}
    inputs: Collections = {"pipeline": pipeline, "pieces": []}
    for phase in PHASES.values():
        found = phase(inputs, job, BlobStore())
        for output in RESULTS:
            results[output] += [found.pop(output)] if output in found else []
        inputs["pieces"] += [found.pop("pieces")] if "pieces" in found else []
        inputs |= found
    for output, collections in results.items():
        whole = collections | f"whole {output}" >> beam.Flatten()
        _write_items(whole, output, f"{work}/{output}.json", job)


def _run_phase(
    name: str, job: Job, folder: pathlib.Path, stored: dict[str, list[Any]], workers: int
) -> list[str]:
    """Runs one phase on its stored input, and stores its output; returns the names of that."""
    pipeline = _local_pipeline(workers)
    inputs: Collections = {"pipeline": pipeline}
    for output, items in stored.items():
        created = pipeline | f"stored {output}" >> beam.Create(items)
        if output in _TEXTS:
            inputs[output] = created | f"load {output}" >> LoadDocuments()
        elif output == "pieces":
            inputs[output] = [created | "handles" >> beam.Map(_piece)]
        else:
            inputs[output] = created
    found = PHASES[name](inputs, job, BlobStore(str(folder / "shuffled")))
    for output, collection in found.items():
        if output in _TEXTS:
            collection = collection | f"store {output}" >> StoreDocuments(
                BlobStore(str(folder / output))
            )
        elif output == "pieces":
            collection = collection | "as text" >> beam.Map(_piece_as_text)
        _write_items(collection, output, str(folder / f"{output}.json"), job)
    pipeline.run().wait_until_finish()
    return list(found)


def _local_pipeline(workers: int) -> beam.Pipeline:
    """A pipeline on this machine, in this process or in several of its own."""
    if workers == 1:
        return beam.Pipeline(runner="FnApiRunner")
    command = shlex.join([sys.executable, "-c", _WORKER])
    environment = SubprocessSDKEnvironment.from_command_string(command)
    options = PipelineOptions([f"--direct_num_workers={workers}"])
    return beam.Pipeline(runner=FnApiRunner(default_environment=environment), options=options)


class StoreDocuments(beam.PTransform):
    """Stores documents: from documents to the handles of their blobs, as text."""

    def __init__(self, store: BlobStore) -> None:
        """Stores in a folder."""
        super().__init__()
        self._store = store

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """From documents to handles."""
        packed = documents | beam.ParDo(PackDocuments(_any_key, self._store, 1))
        return packed | "as text" >> beam.Map(_handle_as_text)


def _any_key(document: RawDocument) -> int:
    return 0


def _handle_as_text(parted: tuple[int, bytes]) -> str:
    return parted[1].decode()


class LoadDocuments(beam.PTransform):
    """Loads the documents that StoreDocuments stored."""

    def expand(self, handles: beam.PCollection) -> beam.PCollection:
        """From handles to documents."""
        return handles | beam.Reshuffle() | beam.FlatMap(_loaded)


def _loaded(handle: str) -> Iterator[RawDocument]:
    for _, document in read_documents([handle.encode()], BlobStore()):
        yield document


def _piece(item: list) -> tuple:
    (kind, shard), handle = item
    return (kind, shard), handle.encode()


def _piece_as_text(piece: tuple) -> list:
    return [piece[0], piece[1].decode()]


def _write_items(collection: beam.PCollection, name: str, path: str, job: Job) -> None:
    """Writes a small collection to one JSON file; an empty one writes none."""
    combine: Any = beam.combiners.ToListCombineFn()
    if name == "tallies":
        combine = MergeTallies(job.sample)
    whole = collection | f"all of {name}" >> beam.CombineGlobally(combine).without_defaults()
    whole | f"write {name}" >> beam.Map(functools.partial(_write_json, path))


def _write_json(path: str, items: Any) -> None:
    write_whole(path, json.dumps(items, ensure_ascii=False).encode())


def _read_items(path: str | pathlib.Path) -> list[Any]:
    found = read_json_value(str(path)) or []
    return found if isinstance(found, list) else [found]
