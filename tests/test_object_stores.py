"""Paths of object stores, against servers on this machine."""

import os
import pickle
import threading

import pytest

from marco_jax.extras import is_installed
from marco_jax.stores.object_path import ObjectPath, list_objects, object_path
from marco_jax.stores.objects import create, read_range, remove_objects
from tests.store_server import find_server, store_server


@pytest.fixture(scope="module", params=["gs", "s3"])
def server(request, tmp_path_factory):
    """A server, that the libraries of this process find."""
    # Not imported before the variables are set, which gcsfs reads then.
    if not is_installed("gcsfs" if request.param == "gs" else "s3fs"):
        pytest.skip("the libraries of the store are not installed")
    with store_server(request.param, tmp_path_factory.mktemp("store")) as found, find_server(found):
        yield found


@pytest.fixture
def folder(server, request):
    """A folder of each test's own."""
    path = object_path(f"{server.root}/{request.node.originalname}")
    yield path
    server.control("every=0")
    remove_objects(path)


def test_a_path_keeps_its_scheme():
    path = ObjectPath("gs://bucket/run")
    for same in ("gs:/bucket/run", "gs://bucket//run/", "gs://bucket/run"):
        assert ObjectPath(same) == path and hash(ObjectPath(same)) == hash(path)
    assert str(path / "a" / "b.json") == "gs://bucket/run/a/b.json"
    assert (path / "a" / "b.json").relative_to(path).as_posix() == "a/b.json"
    assert (path / "a").parent == path and path.name == "run"
    assert str(path.with_name("other")) == "gs://bucket/other"
    assert str((path / ".." / "x").resolve()) == "gs://bucket/x"
    assert pickle.loads(pickle.dumps(path)) == path
    with pytest.raises(TypeError, match="no file of this system"):
        os.fspath(path)


def test_the_methods_of_pathlib(folder):
    file = folder / "x" / "y.txt"
    file.parent.mkdir(parents=True)
    file.write_text("grüße\n", encoding="utf-8")
    assert file.read_text(encoding="utf-8") == "grüße\n" and file.stat().st_size == 8
    assert file.exists() and file.is_file() and not file.is_dir()
    assert folder.is_dir() and not folder.is_file() and not (folder / "z").exists()
    (folder / "b").write_bytes(b"1")
    assert sorted(folder.iterdir()) == [folder / "b", folder / "x"]
    assert list(folder.glob("*/*.txt")) == [file] == list(folder.rglob("*.txt"))
    with file.open("rb") as stream:
        assert stream.read(3) == "grü".encode()[:3]
    assert set(list_objects(folder)) == {"b", "x/y.txt"}
    (folder / "x").rename(folder / "q" / "r")
    assert set(list_objects(folder)) == {"b", "q/r/y.txt"}
    (folder / "b").unlink()
    (folder / "b").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (folder / "b").read_bytes()


def test_an_object_appears_whole_or_not_at_all(folder):
    with (folder / "a").open("w") as stream:
        stream.write("one\n")
        assert not (folder / "a").exists()
    with (folder / "a").open() as stream:
        assert list(stream) == ["one\n"]
    with pytest.raises(RuntimeError), (folder / "b").open("wb") as stream:
        stream.write(b"1")
        raise RuntimeError
    assert not (folder / "b").exists()
    with pytest.raises(OSError, match="cannot be opened in mode 'a'"):
        (folder / "a").open("a")


def test_large_objects_go_in_parts(folder):
    data = os.urandom(1 << 20) * 20
    with (folder / "large").open("wb") as stream:
        for start in range(0, len(data), 1 << 20):
            stream.write(data[start : start + (1 << 20)])
    assert (folder / "large").stat().st_size == len(data)
    assert read_range(folder / "large", 5, 3 << 20) == data[5 : 3 << 20]


def test_one_of_many_creates_an_object(folder):
    won = []
    threads = [
        threading.Thread(target=lambda n=n: won.append(create(folder / "lock", b"%d" % n)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_failed_requests_are_repeated(folder, server):
    server.control("every=3")
    for number in range(5):
        (folder / f"{number}").write_bytes(b"%d" % number)
    assert [(folder / f"{n}").read_bytes() for n in range(5)] == [b"%d" % n for n in range(5)]
    assert server.control()["failed"] >= 3
