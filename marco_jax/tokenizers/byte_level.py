"""Reads byte-level BPE vocabularies in the formats of GPT-2 and tiktoken."""

from __future__ import annotations

import base64
import json
import pathlib


def read_merges(directory: pathlib.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Reads vocabulary and merges from a directory with vocab.json and merges.txt.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    for name in ("vocab.json", "merges.txt"):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory / name} is missing: vocab.json and merges.txt are needed together"
            )
    vocab = json.loads((directory / "vocab.json").read_text("utf-8"))
    # Some packages ship the file with CRLF line ends; \r is never part of a merge.
    lines = (directory / "merges.txt").read_text("utf-8").replace("\r", "").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return vocab, merges


def replay_merges(file: pathlib.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Reads the vocabulary of a tiktoken rank file, and reconstructs its merges.

    The file has no merges. For a token of rank r, applying all merges of lower rank to its bytes
    leaves two parts, which are its merge.
    """
    ranks = {}
    for line in file.read_bytes().splitlines():
        if line.strip():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    letters = byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            left, right = _last_merge(token, rank, ranks)
            merges.append((written[left], written[right]))
    return {written[token]: rank for token, rank in ranks.items()}, merges


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        merged = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
        best = min(range(len(merged)), key=merged.__getitem__)
        if merged[best] >= rank:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    if len(parts) != 2:
        raise ValueError(f"the rank file has no merge that makes token {rank}: is it complete?")
    return parts


def byte_letters() -> list[str]:
    """The printable character of each byte in vocab.json and merges.txt, as in GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in letters]
    letters |= {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]
