"""Ways to damage a folder of prepared data, as a disk, a copy or a person may do it."""

import json
import os
import pathlib
import random
import shutil
from collections.abc import Callable, Iterator

# Files of a store, and of a part of it.
STORE_FILES = ("lengths.npy", "trained.npy", "languages.npy", "manifest.json")
PART_FILES = ("tokens.bin", "mask.bin", "starts.npy", "units.npy", "trained.npy", "languages.npy")

Damage = Callable[[pathlib.Path, random.Random], None]


def flip(path: pathlib.Path, rng: random.Random) -> None:
    """Changes one byte of a file."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(data)


def truncate(path: pathlib.Path, rng: random.Random) -> None:
    """Cuts a file short."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def delete(path: pathlib.Path, rng: random.Random) -> None:
    """Deletes a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def append(path: pathlib.Path, rng: random.Random) -> None:
    """Adds bytes to a file."""
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 100)))


def make_folder(path: pathlib.Path, rng: random.Random) -> None:
    """Puts an empty folder in the place of a file or a folder."""
    delete(path, rng)
    path.mkdir()


def make_file(path: pathlib.Path, rng: random.Random) -> None:
    """Puts a file in the place of a folder."""
    delete(path, rng)
    path.write_bytes(rng.randbytes(10))


def damages() -> Iterator[tuple[str, Damage]]:
    """All of them, by name: each takes the folder and a generator that chooses among stores."""
    for how in (flip, truncate, delete, append, make_folder):
        for name in PART_FILES:
            yield f"{how.__name__} {name}", _one(f"*/part-*/{name}", how)
        for name in STORE_FILES:
            yield f"{how.__name__} store's {name}", _one(f"*/*-1/{name}", how)
        yield f"{how.__name__} part.json", _one("*/part-*/part.json", how)
        yield f"{how.__name__} rows", _one("*/rows-*.json", how)
        yield f"{how.__name__} files.json", _one("files.json", how)
    yield "delete a part", _one("*/part-*", delete)
    yield "empty part", _one("*/part-*", make_folder)
    yield "a file for a part", _one("*/part-*", make_file)
    yield "delete a store", _one("*/*-1", delete)
    yield "empty store", _one("*/*-1", make_folder)
    yield "a file for a store", _one("*/*-1", make_file)
    yield "a manifest that is no JSON object", _one("*/manifest.json", _write("[1]"))
    yield "a manifest of deep lists", _one("*/manifest.json", _write("[" * 100_000))
    yield "an empty manifest", _one("*/manifest.json", _write(""))
    yield "another number in the manifest", _one("*/manifest.json", _change_number)
    yield "another number in part.json", _one("*/part.json", _change_number)
    yield "another number in the rows", _one("*/rows-*.json", _change_number)
    yield "two parts change places", _swap_parts
    yield "a part of another source", _replace_part
    yield "a part of another store of the same size", _part_twice
    yield "the manifest of another source", _replace_manifest
    yield "the rows of another source", _replace_rows
    yield "leftovers of dead writers", _leave_parts
    yield "a part too many", _add_part


def _one(pattern: str, how: Damage) -> Damage:
    def damage(folder: pathlib.Path, rng: random.Random) -> None:
        found = sorted(folder.rglob(pattern))
        # An empty file cannot be cut short, and has no byte to flip.
        found = [path for path in found if path.is_dir() or path.stat().st_size]
        how(rng.choice(found), rng)

    return damage


def _write(text: str) -> Damage:
    return lambda path, rng: path.write_text(text) and None


def _change_number(path: pathlib.Path, rng: random.Random) -> None:
    """Changes a digit, so that the file still is JSON."""
    text = path.read_text()
    at = rng.choice([n for n, letter in enumerate(text) if letter in "12345678"])
    path.write_text(f"{text[:at]}{int(text[at]) + 1}{text[at + 1 :]}")
    json.loads(path.read_text())


def _stores(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.parent for path in folder.rglob("manifest.json"))


def _swap_parts(folder: pathlib.Path, rng: random.Random) -> None:
    store = rng.choice([s for s in _stores(folder) if (s / "part-00001").exists()])
    (store / "part-00000").rename(store / "kept")
    (store / "part-00001").rename(store / "part-00000")
    (store / "kept").rename(store / "part-00001")


def _part_twice(folder: pathlib.Path, rng: random.Random) -> None:
    store = rng.choice([s for s in _stores(folder) if (s / "part-00001").exists()])
    shutil.rmtree(store / "part-00001")
    shutil.copytree(store / "part-00000", store / "part-00001")


def _replace_part(folder: pathlib.Path, rng: random.Random) -> None:
    one, other = rng.sample(_stores(folder), 2)
    shutil.rmtree(one / "part-00000")
    shutil.copytree(other / "part-00000", one / "part-00000")


def _replace_manifest(folder: pathlib.Path, rng: random.Random) -> None:
    one, other = rng.sample(_stores(folder), 2)
    shutil.copy(other / "manifest.json", one / "manifest.json")


def _replace_rows(folder: pathlib.Path, rng: random.Random) -> None:
    one, other = rng.sample(_stores(folder), 2)
    (mine,), (given,) = one.glob("rows-*"), other.glob("rows-*")
    shutil.copy(given, mine)


def _leave_parts(folder: pathlib.Path, rng: random.Random) -> None:
    for store in _stores(folder):
        partial = store / f".part-00000.{os.uname().nodename}.{2**22 + 5}.abcdef01"
        partial.mkdir()
        (partial / "tokens.bin").write_bytes(rng.randbytes(100))
        (store / ".part-00000").mkdir()
        (store / f".manifest.json.{'0' * 32}").write_bytes(b"{")


def _add_part(folder: pathlib.Path, rng: random.Random) -> None:
    store = rng.choice(_stores(folder))
    shutil.copytree(store / "part-00000", store / "part-00077")
