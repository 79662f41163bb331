"""Tokenizers behind one small interface: Qwen2's byte-level BPE, and SentencePiece.

Both read NFC text, add no BOS, and name one id that separates documents. `vocab_size` counts real
ids; a model's embedding may have more rows.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from marco_jax.files import write_bytes
from marco_jax.tokenizers.byte_level import read_merges, replay_merges
from marco_jax.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from marco_jax.tokenizers.sentencepiece_tokenizer import train_sentencepiece as train_sentencepiece
from marco_jax.tokenizers.tokenizer_files import (
    QWEN2_IDS,
    QWEN2_SPECIALS,
    SEPARATOR,
    Companions,
    content_hash,
    read_companions,
    write_companions,
)

# The folder of a tokenizer in a workdir.
TOKENIZER = "tokenizer"

# Qwen2's pretokenisation, as in its own tokenizer.json. Its letter class has no \p{M}: Bengali,
# Nepali, Thai and vowelled Arabic are cut at combining marks.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer(Protocol):
    """What the product needs of a tokenizer."""

    vocab_size: int
    eos_id: int
    separator: str
    # What is saved beside the vocabulary; it may be replaced, by a chat template for instance.
    companions: Companions

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary: equal tokenizers have equal ones."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text; nothing is added to it."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts."""
        ...

    def encode_places(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of an NFC text, and the character at which each of them begins."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        ...

    def save(self, directory: str | os.PathLike) -> None:
        """Writes files that `load_tokenizer` and `transformers.AutoTokenizer` read alike."""
        ...


class BytePairTokenizer:
    """A tokenizer of the `tokenizers` library, such as Qwen2's byte-level BPE."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        separator: str = SEPARATOR,
        companions: Companions | None = None,
    ) -> None:
        """Takes a tokenizer, the token that separates documents, and what is saved beside it.

        Raises:
            ValueError: the vocabulary has no such token.
        """
        self.backend = backend
        self.companions = companions or Companions()
        eos_id = backend.token_to_id(separator)
        if eos_id is None:
            raise ValueError(f"the tokenizer has no token {separator!r} to separate documents")
        self.separator = separator
        self.eos_id: int = eos_id
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the whole definition."""
        return content_hash(self.backend.to_str().encode())

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts."""
        return [e.ids for e in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def encode_places(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of an NFC text, and the character at which each of them begins."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; broken UTF-8 becomes U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes tokenizer.json and what belongs beside it."""
        directory = pathlib.Path(directory)
        write_bytes(directory / "tokenizer.json", self.backend.to_str(pretty=True).encode())
        qwen2 = self._is_qwen2()
        write_companions(directory, self.companions, self.separator, qwen2=qwen2)

    def _is_qwen2(self) -> bool:
        """Whether all but vocabulary and merges is as in Qwen2's own tokenizer.json."""
        ids = [self.backend.token_to_id(token) for token in QWEN2_SPECIALS]
        parts = (self.backend.normalizer, self.backend.pre_tokenizer, self.backend.decoder)
        return ids == QWEN2_IDS and _states(parts) == _states(_qwen2_parts())


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads tokenizer files: a directory, or one of the files themselves.

    Understood, the first that is there: tokenizer.model (passed over where `SentencePieceTokenizer`
    does not read it and a tokenizer.json is there too), tokenizer.json, vocab.json + merges.txt,
    *.tiktoken (the last two: Qwen2's vocabulary, rebuilt).

    Raises:
        FileNotFoundError: none of them.
    """
    path = pathlib.Path(path)
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
        return BytePairTokenizer(backend, _separator(directory, backend, companions), companions)
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
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{path} is no tokenizer.json: {error}") from None


def qwen2_tokenizer(
    vocab: dict[str, int],
    merges: Sequence[tuple[str, str]],
    companions: Companions | None = None,
) -> BytePairTokenizer:
    """Qwen2's tokenizer from its byte-level vocabulary and merges (Qwen2's tokenizer.json)."""
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
    """What parts of a tokenizer do to text: offsets are no matter, nor a decoder's options."""
    states = []
    for part in parts:
        state = part.__getstate__().decode() if part is not None else ""
        if isinstance(part, decoders.Decoder):
            state = type(part).__name__
        states.append(re.sub(r'"trim_offsets":(true|false),?', "", state))
    return states


def _separator(
    directory: pathlib.Path, backend: tokenizers.Tokenizer, companions: Companions
) -> str:
    """The document separator: `<|endoftext|>` where there is one, else the directory's eos."""
    if backend.token_to_id(SEPARATOR) is not None:
        return SEPARATOR
    eos = companions.settings.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    if not eos:
        raise ValueError(
            f"{directory}: the tokenizer has neither {SEPARATOR} nor an eos_token in "
            "tokenizer_config.json: name one there"
        )
    return eos
