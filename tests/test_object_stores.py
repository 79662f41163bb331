"""Paths of object stores, against servers on this machine."""

import contextlib
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from marco_jax.appended_files import AppendedFile
from marco_jax.extras import is_installed
from marco_jax.files import check_writable
from marco_jax.mapped_files import map_array, map_values
from marco_jax.runtime import store_lock
from marco_jax.runtime.store_lock import StoreLock
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
    with pytest.raises(RuntimeError), (folder / "c").open("w") as stream:
        stream.write("half a line")
        raise RuntimeError
    assert not (folder / "b").exists() and not (folder / "c").exists()
    with pytest.raises(OSError, match="cannot be opened in mode 'a'"):
        (folder / "a").open("a")


def test_large_objects_go_in_parts(folder):
    data = os.urandom(1 << 20) * 20
    with (folder / "large").open("wb") as stream:
        for start in range(0, len(data), 1 << 20):
            stream.write(data[start : start + (1 << 20)])
    assert (folder / "large").stat().st_size == len(data)
    assert read_range(folder / "large", 5, 3 << 20) == data[5 : 3 << 20]


def test_a_bucket_that_is_not_there_is_one_line(server):
    with pytest.raises(OSError, match=r"://no-such-bucket .*check the name of the bucket"):
        check_writable("--out", f"{server.scheme}://no-such-bucket/run")
    check_writable("--out", f"{server.root}/not/yet/there")


def test_arrays_are_read_in_ranges(folder):
    values = np.arange(300_000, dtype=np.int32)
    (folder / "values.bin").write_bytes(values.tobytes())
    np.save(file := io.BytesIO(), values)
    (folder / "values.npy").write_bytes(file.getvalue())
    found = map_values(folder / "values.bin", np.int32)
    for piece in (slice(0, 5), slice(70_000, 200_001), slice(299_990, 400_000), slice(7, 7)):
        np.testing.assert_array_equal(found[piece], values[piece])
    assert len(found) == 300_000 and found[-1] == values[-1]
    np.testing.assert_array_equal(np.asarray(found), values)
    np.testing.assert_array_equal(map_array(folder / "values.npy"), values)
    (folder / "empty.bin").write_bytes(b"")
    assert map_values(folder / "empty.bin", np.int32)[:].shape == (0,)


def test_lines_are_added_to_an_object(folder):
    (folder / "log").write_text("one\n")
    with contextlib.closing(AppendedFile(folder / "log")) as file:
        file.write("two\n")
        assert (folder / "log").read_text() == "one\n"
        file.sync()
        assert (folder / "log").read_text() == "one\ntwo\n"
        file.write("three\n")
    assert (folder / "log").read_text() == "one\ntwo\nthree\n"


def test_one_run_at_a_time_holds_the_lock(folder, monkeypatch):
    monkeypatch.setattr(store_lock, "_RENEWED", 0.2)
    monkeypatch.setattr(store_lock, "_POLL", 0.3)
    lock = StoreLock(folder, ".lock")
    with pytest.raises(ValueError, match=r"is in use by process \d+ on .*: stop that run"):
        StoreLock(folder, ".lock")
    # Of another host: it is renewed, and so it is held.
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(ValueError, match="is in use by"):
        StoreLock(folder, ".lock")
    lock.close()
    assert not list_objects(folder)
    StoreLock(folder, ".lock").close()


def test_the_lock_of_a_run_that_was_killed_is_taken_over(folder, monkeypatch):
    monkeypatch.setattr(store_lock, "_LEASE", 1.0)
    monkeypatch.setattr(store_lock, "_POLL", 0.2)
    holder = {"process": 2**22 + 1, "host": "elsewhere", "since": "then"}
    (folder / ".lock.3").write_text(json.dumps(holder))
    lock = StoreLock(folder, ".lock")
    assert set(list_objects(folder)) == {".lock.4"}
    lock.close()
    # At once, where the process of this host is gone.
    (folder / ".lock.0").write_text(json.dumps(holder | {"host": socket.gethostname()}))
    monkeypatch.setattr(store_lock, "_LEASE", 1000.0)
    StoreLock(folder, ".lock").close()


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


def test_a_server_is_found_where_another_library_has_imported_gcsfs_before(tmp_path):
    pytest.importorskip("gcsfs")
    script = (
        "import gcsfs; from marco_jax.stores.object_path import object_path; "
        "path = object_path('gs://bucket/a'); path.write_bytes(b'1'); print(path.read_bytes())"
    )
    with store_server("gs", tmp_path) as found:
        environment = {**os.environ, **found.environment}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, text=True)
    assert done.stdout == "b'1'\n", done.stderr
