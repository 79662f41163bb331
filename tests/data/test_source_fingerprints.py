"""The identity of a source: what is declared, and the content of its files, nothing else."""

import json
import os
import pathlib
import shutil

import pytest

from marco_jax.data import file_hashes
from marco_jax.data.corpus import Corpus
from marco_jax.data.file_hashes import FileHashes
from marco_jax.data.load import load_corpus

LINES = [f'{{"text": "мәтін {n}"}}' for n in range(100)]


@pytest.fixture(autouse=True)
def old_files(monkeypatch):
    """Files that were written just now count as old, as they are in a user's folder."""
    monkeypatch.setattr("marco_jax.data.file_hashes._RECENT", 0)


def write(path: pathlib.Path, lines=LINES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def declared(folder: pathlib.Path, name: str = "kk", **fields) -> Corpus:
    entry = {"name": name, "kind": "text", "language": "kk", "files": "texts/*.jsonl"}
    (folder / "sources.json").write_text(json.dumps({"sources": [entry | fields]}))
    return load_corpus(str(folder / "sources.json"))


class Counted(FileHashes):
    """Counts the files that are read."""

    read = 0


@pytest.fixture(autouse=True)
def count(monkeypatch):
    found = file_hashes.as_path

    class Opened:
        """A path that counts how often it is opened."""

        def __init__(self, path):
            self._path = found(path)

        def open(self, mode):
            Counted.read += 1
            return self._path.open(mode)

        def stat(self):
            return self._path.stat()

    Counted.read = 0
    monkeypatch.setattr(file_hashes, "as_path", Opened)


def fingerprint(folder: pathlib.Path, kept: pathlib.Path | None = None, **fields) -> str:
    hashes = Counted(kept)
    found = declared(folder, **fields).source_fingerprint(fields.get("name", "kk"), hashes)
    hashes.save()
    return found


def test_touching_or_moving_files_changes_nothing(tmp_path):
    kept = tmp_path / "cache" / "files.json"
    kept.parent.mkdir()
    folder = tmp_path / "one"
    write(folder / "texts" / "a.jsonl")
    first = fingerprint(folder, kept)
    assert Counted.read == 1
    assert fingerprint(folder, kept) == first and Counted.read == 1  # nothing is read again
    os.utime(folder / "texts" / "a.jsonl", (1, 1))
    assert fingerprint(folder, kept) == first and Counted.read == 2
    shutil.move(folder, tmp_path / "two")
    assert fingerprint(tmp_path / "two", kept) == first
    shutil.copytree(tmp_path / "two", tmp_path / "three")
    (tmp_path / "three/texts/a.jsonl").rename(tmp_path / "three/texts/b.jsonl")
    assert fingerprint(tmp_path / "three") == first


def test_other_text_of_the_same_size_and_time_is_noticed(tmp_path):
    kept = tmp_path / "files.json"
    path = tmp_path / "texts" / "a.jsonl"
    write(path)
    first, before = fingerprint(tmp_path, kept), path.stat()
    write(path, [LINES[1], LINES[0], *LINES[2:]])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert fingerprint(tmp_path, kept) != first
    write(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint(tmp_path, kept) == first


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", b'{"kept": 1}', b"\xff\xfe", b'{"PATH": [1]}', b'{"PATH": 1}']
)
def test_damaged_records_of_hashes_are_made_again(tmp_path, data):
    kept = tmp_path / "files.json"
    write(tmp_path / "texts" / "a.jsonl")
    first = fingerprint(tmp_path, kept)
    path = json.dumps(str(tmp_path / "texts" / "a.jsonl")).strip('"')
    kept.write_bytes(data.replace(b"PATH", path.encode()))
    assert fingerprint(tmp_path, kept) == first
    assert Counted.read == 2
    assert fingerprint(tmp_path, kept) == first and Counted.read == 2


def test_what_is_declared_is_part_of_it_where_it_changes_the_documents(tmp_path):
    write(tmp_path / "texts" / "a.jsonl")
    write(tmp_path / "english.jsonl")
    write(tmp_path / "other.jsonl", LINES[1:])
    first = fingerprint(tmp_path)
    same = [{"name": "web"}, {"held_out_documents": 7}, {"streamed": True}]
    assert {fingerprint(tmp_path, **fields) for fields in same} == {first}
    other = [
        {"held_out": 0.5},
        {"id": "name"},
        {"joined": True},
        {"english": "english.jsonl"},
        {"english": "other.jsonl"},
        {"format": "text"},
        {"files": ["texts/*.jsonl", "other.jsonl"]},
        {"files": ["other.jsonl", "texts/*.jsonl"]},
    ]
    found = [fingerprint(tmp_path, **fields) for fields in other]
    assert len({first, *found}) == 1 + len(other)


def test_the_module_of_a_seqio_source_is_part_of_it(tmp_path):
    source = {"name": "own", "kind": "text", "language": "kk", "seqio": "own", "module": "own.py"}
    (tmp_path / "data.json").write_text(json.dumps({"sources": [source]}))
    found = set()
    for code in ("", "# changed\n"):
        (tmp_path / "own.py").write_text(code)
        found.add(load_corpus(str(tmp_path / "data.json")).source_fingerprint("own"))
    assert len(found) == 2
