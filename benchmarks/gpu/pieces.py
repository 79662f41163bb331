"""Cuts a folder into pieces that small transfers can carry, and joins them again.

    python benchmarks/gpu/pieces.py cut --folder=kit --out=pieces --megabytes=60
    python benchmarks/gpu/pieces.py join --pieces=carried --store=/tmp/kit

`join` may be called as pieces arrive, some at a time: it checks each against its checksum, moves it
to the store, and says which are still missing; with the last one it unpacks the folder to
STORE/kit. It needs nothing but Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import shutil
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

INDEX = "pieces.json"


class _Cutter:
    """A file to write into, whose bytes go to numbered files of at most `size` bytes."""

    def __init__(self, out: pathlib.Path, size: int) -> None:
        self.out, self.size, self.digests = out, size, {}
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        while len(self._bytes) >= self.size:
            self._put(self.size)
        return len(data)

    def close(self) -> None:
        if self._bytes:
            self._put(len(self._bytes))

    def _put(self, count: int) -> None:
        piece, name = bytes(self._bytes[:count]), f"piece{len(self.digests):03}"
        (self.out / name).write_bytes(piece)
        self.digests[name] = hashlib.sha256(piece).hexdigest()
        del self._bytes[:count]


def cut(folder: pathlib.Path, out: pathlib.Path, size: int) -> list[str]:
    """Writes a folder as pieces of `size` bytes, and their index last; returns their names.

    Raises:
        ValueError: `out` has files already.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise ValueError(f"--out is {out}, which has files: name an empty folder")
    cutter = _Cutter(out, size)
    with tarfile.open(fileobj=cutter, mode="w|") as archive:
        archive.add(folder, arcname=".")
    cutter.close()
    (out / INDEX).write_text(json.dumps(cutter.digests, indent=1), encoding="utf-8")
    return list(cutter.digests)


def join(pieces: pathlib.Path, store: pathlib.Path) -> list[str]:
    """Takes the pieces of a folder into the store; returns the names of those that are missing.

    Raises:
        ValueError: a piece is damaged, or the index has not come with the first pieces.
    """
    store.mkdir(parents=True, exist_ok=True)
    if (pieces / INDEX).exists():
        shutil.copyfile(pieces / INDEX, store / INDEX)
    if not (store / INDEX).exists():
        raise ValueError(f"{pieces} has no {INDEX}: carry it with the first pieces")
    digests = json.loads((store / INDEX).read_text(encoding="utf-8"))
    for path in sorted(pieces.glob("piece[0-9]*")):
        if hashlib.sha256(path.read_bytes()).hexdigest() != digests.get(path.name):
            raise ValueError(f"{path} is damaged, or of another kit: carry it again")
        shutil.copyfile(path, store / path.name)
    missing = [name for name in digests if not (store / name).exists()]
    if not missing and not (store / "kit").exists():
        whole = _Joined(iter([store / name for name in digests]))
        with tarfile.open(fileobj=whole, mode="r|") as archive:
            archive.extractall(store / "unpacked", filter="data")
        (store / "unpacked").rename(store / "kit")
    return missing


class _Joined:
    """The bytes of files one after the other, for reading."""

    def __init__(self, paths: Iterator[pathlib.Path]) -> None:
        self._paths, self._file = paths, self._next(paths)

    @staticmethod
    def _next(paths: Iterator[pathlib.Path]) -> BinaryIO | None:
        path = next(paths, None)
        return path and open(path, "rb")

    def read(self, count: int) -> bytes:
        found = b""
        while self._file and len(found) < count:
            part = self._file.read(count - len(found))
            found += part
            if not part:
                self._file.close()
                self._file = self._next(self._paths)
        return found


def main() -> int:
    """Cuts or joins; returns 3 while pieces are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    cutting = actions.add_parser("cut")
    cutting.add_argument("--folder", type=pathlib.Path, required=True)
    cutting.add_argument("--out", type=pathlib.Path, required=True)
    cutting.add_argument("--megabytes", type=int, default=60, help="of a piece, in MiB")
    joining = actions.add_parser("join")
    joining.add_argument("--pieces", type=pathlib.Path, required=True)
    joining.add_argument("--store", type=pathlib.Path, required=True)
    given = parser.parse_args()
    try:
        if given.action == "cut":
            print("\n".join(cut(given.folder, given.out, given.megabytes << 20)))
            return 0
        missing = join(given.pieces, given.store)
    except (ValueError, OSError) as error:
        print(f"pieces: {error}", file=sys.stderr)
        return 2
    print(f"missing: {', '.join(missing)}" if missing else f"whole: {given.store / 'kit'}")
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
