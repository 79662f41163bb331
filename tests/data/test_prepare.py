"""Preparing data with processes and hosts: killed, interrupted, out of disk, bad records."""

import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixture_table import mixture_table
from marco_jax.data.mixtures import Mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.workers import Context, Workers
from marco_jax.tokenizers.tokenizer import train_sentencepiece

PART_BYTES = 20_000
PARTS = 10

# A preparation with small parts; its arguments are those of `start`, as JSON.
SCRIPT = """
import json, os, signal, sys, time
from marco_jax.data import input_parts
from marco_jax.data.load import load_corpus
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.workers import Context, Workers
from marco_jax.tokenizers.tokenizer import load_tokenizer


class Slow:
    # Pickled with its class, since processes of the pool import this file too.
    def __init__(self, path, pause):
        self._path, self._pause, self._own = path, pause, load_tokenizer(path)

    def __reduce__(self):
        return Slow, (self._path, self._pause)

    def __getattr__(self, name):
        return getattr(self._own, name)

    def encode_batch(self, texts):
        time.sleep(self._pause)
        return self._own.encode_batch(texts)


input_parts.PART_BYTES = 20_000
if __name__ == "__main__":
    # Below a script's background job a process would ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked = json.loads(sys.argv[1])
    tokenizer = Slow(asked["tokenizer"], asked["pause"])
    corpus = load_corpus(asked["data"], seed=0)
    with Workers(asked["workers"], Context(corpus, tokenizer)) as workers:
        if asked["workers"]:
            print(os.getpid(), flush=True)
        prepare_stores(
            corpus, tokenizer, ["kk"], asked["cache"], workers=workers, host=tuple(asked["host"])
        )
    print(json.dumps(sorted({"tensorflow", "seqio"} & set(sys.modules))), flush=True)
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["қадам жаңа мәтін оқиды", "the run saves its state"] * 20
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = train_sentencepiece(texts, 286, folder)
    tokenizer.folder = str(folder)
    return tokenizer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A source of about PARTS parts."""
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    words = ["қадам", "жаңа", "мәтін", "оқиды", "the", "run", "saves", "its", "state"]
    rows, size = [], 0
    while size < (PARTS + 1) * PART_BYTES:
        text = " ".join(rng.choices(words, k=rng.randrange(3, 60)))
        rows.append(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        size += len(rows[-1].encode())
    (folder / "kk.jsonl").write_text("".join(rows))
    return declare(folder)


def declare(folder):
    source = {"name": "kk", "kind": "text", "language": "kk", "files": "kk.jsonl"}
    (folder / "data.json").write_text(json.dumps({"sources": [source]}))
    return folder / "data.json"


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("marco_jax.data.input_parts.PART_BYTES", PART_BYTES)


@pytest.fixture
def start(tmp_path, data, tokenizer):
    """Starts a preparation in a process of its own."""
    script = tmp_path / "prepare_slowly.py"
    script.write_text(SCRIPT)
    started = []

    def run(cache, *, workers=0, pause=0.0, host=(0, 1)):
        asked = {
            "cache": str(cache),
            "data": str(data),
            "tokenizer": tokenizer.folder,
            "workers": workers,
            "pause": pause,
            "host": host,
        }
        environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
        environment["PYTHONPATH"] = os.pathsep.join([str(pathlib.Path.cwd()), str(tmp_path)])
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(asked)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def contents(cache):
    """The bytes of every file of the stores, by its path."""
    files = [p for p in cache.rglob("*") if p.is_file() and p.name != "files.json"]
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def living_folders(cache, start):
    """Folders whose names begin with `start`, while others make and rename them.

    A folder that is gone before it is read is left out, where Path.rglob raises.
    """
    return sorted(
        pathlib.Path(folder) / name
        for folder, names, _ in os.walk(cache)
        for name in names
        if name.startswith(start)
    )


def finished_parts(cache):
    found = [folder / "part.json" for folder in living_folders(cache, "part-")]
    return {path: path.stat().st_mtime_ns for path in found if path.exists()}


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def session_of(process):
    """Living processes of a session but its first."""
    ids = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if (
            int(fields[3]) == process.pid
            and fields[0] != "Z"
            and stat.parent.name != str(process.pid)
        ):
            ids.append(int(stat.parent.name))
    return ids


@pytest.fixture(scope="module")
def undisturbed(data, tokenizer, tmp_path_factory):
    cache = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marco_jax.data.input_parts.PART_BYTES", PART_BYTES)
        prepare_stores(load_corpus(str(data), seed=0), tokenizer, ["kk"], cache)
    assert len(finished_parts(cache)) >= PARTS
    return contents(cache)


@pytest.mark.parametrize(
    ("ended_by", "workers"), [(signal.SIGKILL, 0), (signal.SIGKILL, 2), (signal.SIGINT, 2)]
)
def test_an_ended_preparation_goes_on_with_the_parts_that_are_missing(
    ended_by, workers, start, tmp_path, data, tokenizer, undisturbed, small_parts
):
    cache = tmp_path / "cache"
    process = start(cache, workers=workers, pause=2)
    wait_for(lambda: len(finished_parts(cache)) >= 3)
    if ended_by == signal.SIGINT:  # a terminal sends it to all processes
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(ended_by)
    error = process.communicate(timeout=30)[1]
    assert process.returncode
    assert error.count("Traceback") <= 1
    wait_for(lambda: not session_of(process), 15)
    before = finished_parts(cache)
    assert 3 <= len(before) < PARTS
    assert not list(cache.rglob("manifest.json"))
    prepare_stores(load_corpus(str(data), seed=0), tokenizer, ["kk"], cache)
    after = finished_parts(cache)
    assert {path: after[path] for path in before} == before
    assert not list(cache.rglob(".*"))
    assert contents(cache) == undisturbed


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_write_the_same_bytes_quietly(workers, start, tmp_path, undisturbed):
    process = start(tmp_path / "cache", workers=workers)
    output, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, "")
    # Neither TensorFlow nor SeqIO was imported by the process that trains.
    assert output.splitlines()[-1] == "[]"
    assert contents(tmp_path / "cache") == undisturbed
    # The tracker of shared resources ends a moment after its parent.
    wait_for(lambda: not session_of(process), 15)


def test_without_processes_it_is_quiet_too(start, tmp_path, undisturbed):
    process = start(tmp_path / "cache")
    assert process.communicate(timeout=120)[1] == ""
    assert contents(tmp_path / "cache") == undisturbed


def test_hosts_that_share_a_cache_share_the_work(start, tmp_path, undisturbed):
    cache = tmp_path / "cache"
    hosts = [start(cache, pause=0.5, host=(number, 2)) for number in range(2)]
    writers = set()

    def ended():
        for partial in living_folders(cache, ".part-"):
            _, name, *_, process, _ = partial.name.split(".")
            writers.add((name, int(process)))
        return all(host.poll() is not None for host in hosts)

    wait_for(ended, 120)
    assert [host.returncode for host in hosts] == [0, 0], [h.stderr.read() for h in hosts]
    assert contents(cache) == undisturbed
    numbers = {int(name.removeprefix("part-")) for name, _ in writers}
    shares = [{n for n, process in writers if process == host.pid} for host in hosts]
    # Each begins with parts of its own; the last ones may be written by both.
    assert len(numbers) >= PARTS and len(shares[0] & shares[1]) <= 2
    assert min(map(len, shares)) >= PARTS // 2 - 1


@pytest.mark.parametrize("number", range(2))
def test_hosts_without_a_shared_folder_each_write_everything(
    number, tmp_path, data, tokenizer, undisturbed, small_parts
):
    corpus = load_corpus(str(data), seed=0)
    prepare_stores(corpus, tokenizer, ["kk"], tmp_path, host=(number, 2))
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("at", [1, 9, 25, 33])
def test_a_full_disk_is_one_line_and_the_next_call_completes(
    at, tmp_path, data, tokenizer, undisturbed, small_parts, monkeypatch
):
    corpus, calls = load_corpus(str(data), seed=0), iter(range(1000))
    replace = os.replace

    def full(*names):
        if next(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="the disk is full; .* are kept: make room") as caught:
            prepare_stores(corpus, tokenizer, ["kk"], tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not list(tmp_path.rglob(".*"))
    before = finished_parts(tmp_path)
    prepare_stores(corpus, tokenizer, ["kk"], tmp_path)
    assert {p: t for p, t in finished_parts(tmp_path).items() if p in before} == before
    assert contents(tmp_path) == undisturbed


@pytest.fixture
def bad_data(tmp_path):
    """Records of which some have no text."""
    good = [json.dumps({"text": f"the run saves its state {n}"}) for n in range(300)]
    rows = [
        *good[:100],
        "{",
        *good[100:200],
        '{"text": 7}',
        '{"text": "  "}',
        *good[200:],
        '{"a": 1}',
    ]
    (tmp_path / "kk.jsonl").write_text("\n".join(rows) + "\n")
    return declare(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_record_is_the_same_line_with_and_without_processes(
    workers, bad_data, tokenizer, tmp_path
):
    corpus = load_corpus(str(bad_data), seed=0)
    with (
        Workers(workers, Context(corpus, tokenizer)) as pool,
        pytest.raises(ValueError, match=r"kk.jsonl:101: not valid.*data_errors=skip") as caught,
    ):
        prepare_stores(corpus, tokenizer, ["kk"], tmp_path / "cache", workers=pool)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*part-*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_records_that_are_left_out_are_counted_in_the_manifest_and_the_mixture(
    workers, bad_data, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("marco_jax.data.input_parts.PART_BYTES", 2000)
    # Other processes make small parts too.
    module = tmp_path / "small_parts.py"
    module.write_text("import marco_jax.data.input_parts as i\ni.PART_BYTES = 2000\n")
    corpus = load_corpus(str(bad_data), seed=0, data_errors="skip")
    with Workers(workers, Context(corpus, tokenizer, (str(module),))) as pool:
        stores = prepare_stores(corpus, tokenizer, ["kk"], tmp_path / "cache", workers=pool)
    expected = {"not valid JSON": 1, "not a text": 2, "empty text": 1}
    assert stores["kk"].manifest["errors"] == expected
    packed = pack_sources(stores, length=64, seed=0, eos_id=tokenizer.eos_id)
    stages = [Stage("s", Mixture("m", {"kk": 1.0}), 3)]
    feed = build_feed(packed, stages, length=64, batch_rows=2, seed=0)
    assert feed.describe()["sources"]["kk"]["errors"] == expected
    assert mixture_table(feed.describe(), 4.0)[0]
