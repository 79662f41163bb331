"""The pipeline is one that runners other than the local one take, and writes where Beam writes."""

import gzip
import importlib.util
import json
import os
import random
import signal
import threading
import time

import apache_beam as beam
import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem
from apache_beam.options.pipeline_options import PipelineOptions

from marco_jax.curation.beam_runs import chain_phases
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.pipeline import Job

WORDS = ["river", "market", "garden", "winter", "teacher", "letter", "morning", "people", "bridge"]
STAGES = (
    *("UrlRules", "ExtractText", "DamageRules", "IdentifyLanguage", "Heuristics"),
    *("ExactDuplicates", "NearDuplicates", "MaskPersonal", "WriteShards"),
)


def prose(seed: int) -> str:
    draw = random.Random(seed)
    made = []
    for _ in range(8):
        first, second = draw.sample(WORDS, 2)
        name = "".join(draw.choice("bdfglmnprst") + draw.choice("aeiou") for _ in range(4)).title()
        made.append(f"The people of {name} met in the {first}, and {name} saw the {second} of it.")
    return " ".join(made)


@pytest.fixture
def raw(tmp_path):
    """Files with pages, of which some are copies, and with pairs."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for part in range(4):
        rows = [{"id": f"{part}-{n}", "text": prose(50 * part + n % 40)} for n in range(50)]
        rows.append({"id": f"short{part}", "text": "Click here"})
        lines = "\n".join(map(json.dumps, rows))
        (folder / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    pairs = "The house is very old.\tDas Haus ist sehr alt.\n" * 3
    (folder / "pairs.en-de.tsv").write_text(pairs, encoding="utf-8")
    return (str(folder / "*"),)


def job(**changes) -> Job:
    settings = {"settings": curation_config().to_dict(), "files": ("gs://bucket/a.jsonl.gz",)}
    return Job(**{**settings, "parts": 8, "final": "gs://bucket/out", **changes})


def test_the_pipeline_of_a_runner_is_small_and_names_the_stages():
    pipeline = beam.Pipeline(runner="FnApiRunner")
    chain_phases(pipeline, job(), "gs://bucket/results")
    proto = pipeline.to_runner_api()
    # Dataflow takes requests of up to ten megabytes.
    assert len(proto.SerializeToString()) < 2_000_000
    labels = " ".join(t.unique_name for t in proto.components.transforms.values())
    kinds = {type(node.transform).__name__ for node in _applied(pipeline._root_transform())}
    assert set(STAGES) <= kinds and "near duplicates/components" in labels
    schemas = [c for c in proto.components.coders.values() if "row" in c.spec.urn]
    assert schemas, "documents pass as Beam rows"


def _applied(node):
    yield node
    for part in node.parts:
        yield from _applied(part)


@pytest.mark.slow
def test_dataflow_gets_the_pipeline_and_the_package_of_its_workers(root, tmp_path, monkeypatch):
    """Everything up to the request that submits the job, and no network."""
    if not importlib.util.find_spec("google.auth") or not importlib.util.find_spec("build"):
        pytest.skip("apache-beam[gcp] is not installed")
    from apache_beam.internal.gcp import auth
    from apache_beam.io.gcp import gcsio
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient

    staged, sent = [], []

    class SubmittedError(Exception):
        """Ends the run in place of the request."""

    def submit(client, request):
        sent.append(request)
        raise SubmittedError

    def copied(client, source, target, *others):
        staged.append((target, os.path.getsize(source)))

    monkeypatch.setattr(DataflowApplicationClient, "submit_job_description", submit)
    monkeypatch.setattr(DataflowApplicationClient, "_gcs_file_copy", copied)
    monkeypatch.setattr(DataflowApplicationClient, "stage_file", lambda *all: None)
    monkeypatch.setattr(auth, "get_service_credentials", lambda *all: None)
    monkeypatch.setattr(gcsio.GcsIO, "is_soft_delete_enabled", lambda *all: False)
    options = ["--project=project-one", "--region=europe-west4", "--job_name=curate"]
    options += ["--temp_location=gs://bucket/temp", f"--setup_file={root}/setup.py"]
    pipeline = beam.Pipeline(runner="DataflowRunner", options=PipelineOptions(options))
    chain_phases(pipeline, job(), "gs://bucket/results")
    with pytest.raises(SubmittedError):
        pipeline.run()
    assert sent[0].proto.name == "curate"
    assert any(name.endswith("workflow.tar.gz") and size > 100_000 for name, size in staged)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_corpus_though_a_worker_is_killed(tmp_path, raw):
    from dask.distributed import Client, LocalCluster

    local = curate(raw, tmp_path / "local", curation_config())
    cluster = LocalCluster(4, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        workers = list(client.run(os.getpid).values())

        def kill():
            # As soon as results of the pipeline lie on the workers.
            def stored(dask_scheduler):
                return sum(len(w.has_what) for w in dask_scheduler.workers.values())

            while client.run_on_scheduler(stored) < 40:
                time.sleep(0.05)
            os.kill(workers[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        options = [f"--dask_client_address={cluster.scheduler_address}"]
        found = curate(raw, tmp_path / "dask", curation_config(), runner="dask", options=options)
        killer.join()
        assert workers[0] not in client.run(os.getpid).values()
    assert found == local
    for name in ("manifest.json", "report.json"):
        texts = [(tmp_path / run / name).read_bytes() for run in ("local", "dask")]
        assert texts[0] == texts[1]


class BucketFileSystem(LocalFileSystem):
    """An object store for tests: bucket://NAME/FILE is a file below ROOT; it has no folders."""

    ROOT = ""

    @classmethod
    def scheme(cls):
        return "bucket"

    def _local(self, path):
        return os.path.join(self.ROOT, path.removeprefix("bucket://"))

    def join(self, base, *paths):
        return "/".join([base.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rpartition("/")[::2])

    def _list(self, prefix):
        for folder, _, names in os.walk(self.ROOT):
            for name in names:
                path = os.path.join(folder, name)
                found = f"bucket://{os.path.relpath(path, self.ROOT)}"
                if found.startswith(prefix):
                    yield FileMetadata(found, os.path.getsize(path), os.path.getmtime(path))

    def metadata(self, path):
        return next(self._list(path))

    def exists(self, path):
        return os.path.isfile(self._local(path))

    def create(self, path, *others, **named):
        return super().create(self._local(path), *others, **named)

    def open(self, path, *others, **named):
        return super().open(self._local(path), *others, **named)

    def rename(self, sources, targets):
        super().rename(*([self._local(path) for path in paths] for paths in (sources, targets)))

    def delete(self, paths):
        for path in paths:
            os.remove(self._local(path))


def test_an_object_store_holds_input_and_corpus(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(BucketFileSystem, "ROOT", str(tmp_path))
    one = curate(raw, tmp_path / "one", curation_config(), rejects=tmp_path / "gone")
    there = curate(
        ("bucket://raw/*",), "bucket://there", curation_config(), rejects="bucket://rejected"
    )
    chained = curate(
        ("bucket://raw/*",), "bucket://chained", curation_config(), runner="DirectRunner"
    )
    assert there == one == chained
    manifests = [tmp_path / run / "manifest.json" for run in ("one", "there", "chained")]
    assert len({path.read_bytes() for path in manifests}) == 1
    files = [sorted(path.name for path in (tmp_path / n).iterdir()) for n in ("gone", "rejected")]
    assert files[0] == files[1] and files[0]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".draft", ".partial")]
    assert not [path for path in (tmp_path / "chained" / "results").glob("*") if path.is_file()]
    with pytest.raises(ValueError, match="bucket://there exists: name a new directory"):
        curate(raw, "bucket://there", curation_config())
    with pytest.raises(ValueError, match="Beam has no file system for nowhere://: use gs://"):
        curate(raw, "nowhere://there", curation_config())


@pytest.mark.parametrize(
    ("scheme", "module", "extra"),
    [("gs", "apitools", "gcp"), ("s3", "boto3", "aws")],
)
def test_a_store_without_its_packages_is_one_line(
    tmp_path, raw, monkeypatch, scheme, module, extra
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == module else found(name)
    )
    says = rf"{scheme}://: pip install 'apache-beam\[{extra}\]'"
    with pytest.raises(ValueError, match=says):
        curate((f"{scheme}://bucket/*.jsonl",), tmp_path / "out", curation_config())
    with pytest.raises(ValueError, match=says):
        curate(raw, f"{scheme}://bucket/out", curation_config())
    assert not list(tmp_path.glob("out*"))


def test_the_example_of_the_docs_keeps_what_it_says(tmp_path, root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (root / "docs" / "curation.md").read_text(encoding="utf-8")
    example = page.partition("<!-- run -->\n```python\n")[2].partition("```")[0]
    exec(compile(example, "example", "exec"), {"__name__": "example"})
    files = list((tmp_path / "mine").rglob("*.gz"))
    assert [file.name for file in files] == ["en.00000.jsonl.gz"]
    rows = [json.loads(line) for line in gzip.decompress(files[0].read_bytes()).splitlines()]
    assert [(row["id"][:5], row["cluster_size"]) for row in rows] == [("mine-", 2)]
