"""The tokenizer interface and its implementations: Qwen2's byte-level BPE, and SentencePiece.

Both normalise text to NFC, add no BOS, and have one EOS token that ends a document. `vocab_size`
is the number of tokens; a model's embedding may have more rows.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from marco_jax.files import as_path, write_bytes
from marco_jax.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from marco_jax.tokenizers.sentencepiece_tokenizer import train_sentencepiece as train_sentencepiece
from marco_jax.tokenizers.tokenizer_files import (
    EOS_TOKEN,
    QWEN2_IDS,
    QWEN2_SPECIALS,
    Companions,
    content_hash,
    read_companions,
    write_companions,
)

# The folder of a tokenizer in a workdir.
TOKENIZER = "tokenizer"

# The pretokeniser of Qwen2's tokenizer.json. Its letter class has no \p{M}, so that words of
# Bengali, Nepali, Thai and vowelled Arabic are cut at combining marks.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer(Protocol):
    """The interface of a tokenizer."""

    vocab_size: int
    eos_id: int
    eos_token: str
    # Saved beside the vocabulary; may be replaced, for instance to set a chat template.
    companions: Companions

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary, the same for equal tokenizers."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without added special tokens."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts."""
        ...

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids of an NFC text, and the index of each token's first character."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        ...

    def save(self, directory: str | os.PathLike) -> None:
        """Writes files from which `load_tokenizer` and `transformers.AutoTokenizer` load it."""
        ...


class BytePairTokenizer:
    """A tokenizer of the `tokenizers` library, such as Qwen2's byte-level BPE; see `Tokenizer`."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        eos_token: str = EOS_TOKEN,
        companions: Companions | None = None,
    ) -> None:
        """Wraps a tokenizer of the library, with its EOS token.

        Raises:
            ValueError: the vocabulary does not contain `eos_token`.
        """
        self.backend = backend
        self.companions = companions or Companions()
        eos_id = backend.token_to_id(eos_token)
        if eos_id is None:
            raise ValueError(f"the tokenizer has no token {eos_token!r} to end documents")
        self.eos_token = eos_token
        self.eos_id: int = eos_id
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the whole tokenizer.json."""
        return content_hash(self.backend.to_str().encode())

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[int]]:
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; invalid UTF-8 becomes U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes tokenizer.json and the files beside it."""
        directory = as_path(directory)
        write_bytes(directory / "tokenizer.json", self.backend.to_str(pretty=True).encode())
        qwen2 = self._is_qwen2()
        write_companions(directory, self.companions, self.eos_token, qwen2=qwen2)

    def _is_qwen2(self) -> bool:
        """Whether the tokenizer equals Qwen2's except for its vocabulary and merges."""
        ids = [self.backend.token_to_id(token) for token in QWEN2_SPECIALS]
        parts = (self.backend.normalizer, self.backend.pre_tokenizer, self.backend.decoder)
        return ids == QWEN2_IDS and _states(parts) == _states(_qwen2_parts())


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads a tokenizer from a directory, or from one file of it.

    Takes the first of these that exists: tokenizer.model (ignored if `SentencePieceTokenizer` does
    not support it and a tokenizer.json exists), tokenizer.json, vocab.json with merges.txt, and
    *.tiktoken. The last two give a tokenizer like Qwen2's, with their vocabulary.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file is not valid, or the tokenizer has no EOS token.
    """
    path = as_path(path)
    directory = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    by_name = {file.name: file for file in files}
    if "tokenizer.model" in by_name:
        try:
            model = by_name["tokenizer.model"].read_bytes()
            return SentencePieceTokenizer(model, read_companions(directory))
        except ValueError:
            if "tokenizer.json" not in by_name:
                raise
    if "tokenizer.json" in by_name:
        backend = _read_backend(by_name["tokenizer.json"])
        companions = read_companions(directory)
        return BytePairTokenizer(backend, _eos_token(directory, backend, companions), companions)
    if "vocab.json" in by_name or "merges.txt" in by_name:
        return qwen2_tokenizer(*read_merges(directory), read_companions(directory))
    ranks = [file for file in files if file.suffix == ".tiktoken"]
    if ranks:
        return qwen2_tokenizer(*replay_merges(ranks[0]), read_companions(directory))
    raise FileNotFoundError(
        f"{path} holds no tokenizer: give a directory with tokenizer.json, tokenizer.model, "
        "vocab.json and merges.txt, or qwen.tiktoken"
    )


def _read_backend(path: pathlib.Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library has no narrower exception
        raise ValueError(f"{path} is not a valid tokenizer.json: {error}") from None


def qwen2_tokenizer(
    vocab: dict[str, int],
    merges: Sequence[tuple[str, str]],
    companions: Companions | None = None,
) -> BytePairTokenizer:
    """Builds a tokenizer like Qwen2's tokenizer.json from a byte-level vocabulary and merges."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = _qwen2_parts()
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in QWEN2_SPECIALS]
    )
    return BytePairTokenizer(backend, companions=companions)


def _qwen2_parts() -> tuple[Any, Any, Any]:
    """Normaliser, pretokeniser and decoder of Qwen2's tokenizer.json."""
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return normalizers.NFC(), pre_tokenizers.Sequence([split, letters]), decoders.ByteLevel()


def _states(parts: Sequence[Any]) -> list[str]:
    """Describes parts of a tokenizer, without options that do not change ids or text."""
    states = []
    for part in parts:
        state = part.__getstate__().decode() if part is not None else ""
        if isinstance(part, decoders.Decoder):
            state = type(part).__name__
        states.append(re.sub(r'"trim_offsets":(true|false),?', "", state))
    return states


def _eos_token(
    directory: pathlib.Path, backend: tokenizers.Tokenizer, companions: Companions
) -> str:
    """The EOS token: `<|endoftext|>` if it exists, else eos_token of tokenizer_config.json."""
    if backend.token_to_id(EOS_TOKEN) is not None:
        return EOS_TOKEN
    eos = companions.settings.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    if not eos:
        raise ValueError(
            f"{directory}: the tokenizer has neither {EOS_TOKEN} nor an eos_token in "
            "tokenizer_config.json: name one there"
        )
    return eos


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
