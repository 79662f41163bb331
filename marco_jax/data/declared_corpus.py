"""A corpus of declared sources (sources.py), of any size: training text is streamed, never held."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import itertools
import json
import pathlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marco_jax.data import readers
from marco_jax.data.chat import conversation, plain_text, preference
from marco_jax.data.corpus import (
    CHAT,
    HELD_OUT,
    PAIRS_A_DOCUMENT,
    PARALLEL,
    PREFERENCE,
    TEXT,
    TRAIN,
    Document,
    Pair,
    SourceInfo,
    find_pairs,
    normalize,
)
from marco_jax.data.sources import Source, read_sources
from marco_jax.data.templates import TEMPLATES, render_pair
from marco_jax.extras import optional
from marco_jax.languages import LANGUAGES, get_language

# Columns of TSV files of conversations and of preferences.
_COLUMNS = {CHAT: ("prompt", "response"), PREFERENCE: ("prompt", "chosen", "rejected")}
# Training pairs of a direction that are kept as worked examples of a translation prompt.
EXAMPLE_PAIRS = 1000


class DeclaredCorpus:
    """Documents and pairs of declared sources.

    The key of a document (its id, else its text; of a pair the English side, else the first) alone
    decides whether it is held out, so that what is held out in one language is in all of them.
    """

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        """`seed` chooses templates, partners and names of languages, not the split."""
        self._sources = {source.name: source for source in sources}
        self._seed = seed
        self._held_out = functools.cache(self._find_held_out)

    def infos(self) -> list[SourceInfo]:
        """The sources, as declared."""
        return [source.info for source in self._sources.values()]

    def sources(self) -> list[str]:
        """Their names."""
        return list(self._sources)

    def documents(self, source: str, split: str) -> Iterator[Document]:
        """The documents of a source; at most `held_out_documents` of those held out."""
        declared = self._sources[source]
        if split == HELD_OUT:
            yield from self._held_out(source)
        elif declared.kind == PARALLEL:
            yield from self._rendered(declared, self._pairs(declared, TRAIN))
        elif declared.kind in (CHAT, PREFERENCE):
            yield from self._conversations(declared, TRAIN)
        else:
            yield from self._texts(declared, TRAIN)

    def texts(self, language: str, split: str) -> list[str] | Iterator[str]:
        """Plain texts of a language; a list where they are held out."""
        own = [s for s in self._sources.values() if (s.kind, s.language) == (TEXT, language)]
        found = (d.text for source in own for d in self.documents(source.name, split))
        return list(found) if split == HELD_OUT else found

    def pairs(self, source_language: str, target_language: str, split: str) -> list[Pair]:
        """Pairs from one language to another: those held out, or some of the others."""
        return find_pairs(self._all_pairs, source_language, target_language, split)

    def source_fingerprint(self, source: str) -> str:
        """A hash of the declaration, and of names, sizes and times of change of the files."""
        declared = self._sources[source]
        files = [
            readers.file_fingerprint(path)
            for patterns in (declared.files, declared.aligned)
            if patterns
            for path in readers.expand_globs(patterns)
        ]
        declaration = {
            name: value
            for name, value in vars(declared).items()
            if name not in ("files", "aligned", "data_dir", "module")
        }
        seed = self._seed if declared.kind == PARALLEL else 0
        text = json.dumps([declaration, files, seed], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @functools.cached_property
    def _all_pairs(self) -> Mapping[tuple[str, str, str], list[Pair]]:
        found: dict[tuple[str, str, str], list[Pair]] = {}
        for source in self._sources.values():
            if source.kind != PARALLEL:
                continue
            limits = {HELD_OUT: source.held_out_documents, TRAIN: EXAMPLE_PAIRS}
            for split, limit in limits.items():
                for pair in itertools.islice(self._pairs(source, split), limit):
                    key = (pair.source_language, pair.target_language, split)
                    found.setdefault(key, []).append(pair)
        return found

    def _find_held_out(self, source: str) -> list[Document]:
        declared = self._sources[source]
        if not declared.held_out:
            return []
        if declared.kind == PARALLEL:
            found = self._rendered(declared, self._pairs(declared, HELD_OUT))
        elif declared.kind in (CHAT, PREFERENCE):
            found = self._conversations(declared, HELD_OUT)
        else:
            found = self._texts(declared, HELD_OUT)
        sides = 2 if declared.kind == PREFERENCE else 1
        return list(itertools.islice(found, sides * declared.held_out_documents))

    def _texts(self, source: Source, split: str) -> Iterator[Document]:
        for place, record in _records(source):
            text = record.get(source.text)
            if not isinstance(text, str):
                raise ValueError(f'{place} has no text under "{source.text}"')
            text = normalize(text)
            key = str(record.get(source.id) or text)
            if text and _split(key, source.held_out) == split:
                yield Document(text, source.language, source.name, key)

    def _conversations(self, source: Source, split: str) -> Iterator[Document]:
        """Conversations; of a preference the chosen one, then the rejected one."""
        for place, record in _records(source):
            if source.kind == CHAT:
                sides = [conversation(record, place)]
                prompt = sides[0]
            else:
                sides = list(preference(record, place))
                prompt = sides[0][:-1]
            key = str(record.get(source.id) or plain_text(prompt))
            language = source.language or str(record.get("language") or "")
            if _split(key, source.held_out) == split:
                for turns in sides:
                    yield Document(plain_text(turns), language, source.name, key, turns)

    def _pairs(self, source: Source, split: str) -> Iterator[Pair]:
        pairs = self._aligned(source) if source.aligned else self._given_pairs(source)
        for pair in pairs:
            empty = not pair.source or not pair.target or pair.source == pair.target
            if not empty and _split(pair.key, source.held_out) == split:
                yield pair

    def _given_pairs(self, source: Source) -> Iterator[Pair]:
        first, second = source.languages
        for place, record in _records(source):
            sides = [
                record.get("source", record.get(first)),
                record.get("target", record.get(second)),
            ]
            if not all(isinstance(side, str) for side in sides):
                raise ValueError(
                    f'{place} has no pair of texts under "source" and "target", '
                    f'nor under "{first}" and "{second}"'
                )
            x, y = map(normalize, sides)
            yield Pair(y if second == "en" else x, first, second, x, y)

    def _aligned(self, source: Source) -> Iterator[Pair]:
        """Lines of texts that mean the same, each paired between a few of the languages."""
        files = {}
        for path in readers.expand_globs(source.aligned):
            code = pathlib.PurePath(path).name.partition(".")[0]
            if code in LANGUAGES:
                files[code] = path
        if len(files) < 2:
            raise ValueError(
                f"{source.name}: aligned names {list(files)}: two languages are needed"
            )
        streams = [readers.read_records(path, "lines") for path in files.values()]
        try:
            for number, lines in enumerate(zip(*streams, strict=True)):
                texts = {
                    code: normalize(record["text"])
                    for code, (_, record) in zip(files, lines, strict=True)
                }
                rng = random.Random(f"{self._seed} {source.name} {number}")
                key = texts.get("en") or next(iter(texts.values()))
                for code in texts:
                    others = [other for other in texts if other != code]
                    for other in rng.sample(others, min(source.partners, len(others))):
                        yield Pair(key, code, other, texts[code], texts[other])
        except ValueError as error:
            if "zip()" not in str(error):
                raise
            raise ValueError(
                f"{source.name}: the aligned files do not have as many lines as each other"
            ) from None

    def _rendered(self, source: Source, pairs: Iterator[Pair]) -> Iterator[Document]:
        """A few neighbouring pairs of one direction a document, under one template."""
        directions = itertools.groupby(pairs, lambda p: (p.source_language, p.target_language))
        for _, group in directions:
            while True:
                first = next(group, None)
                if first is None:
                    break
                rng = random.Random(f"{self._seed} {first.key} {first.target}")
                chunk = [first, *itertools.islice(group, rng.randrange(PAIRS_A_DOCUMENT))]
                yield self._document(source, chunk, rng)
                if source.both_directions:
                    yield self._document(source, [_turned(pair) for pair in chunk], rng)

    def _document(self, source: Source, pairs: list[Pair], rng: random.Random) -> Document:
        x, y = pairs[0].source_language, pairs[0].target_language
        names = _names(x, y, source.language_names, rng)
        template = rng.randrange(len(TEMPLATES))
        texts = [render_pair(template, *names, pair.source, pair.target) for pair in pairs]
        return Document("\n\n".join(texts), y, source.name, pairs[0].key)


def load_declared(path: str, seed: int) -> DeclaredCorpus:
    """The corpus that a JSON file declares; see sources.py.

    Raises:
        ValueError: a declaration that cannot be used.
    """
    return DeclaredCorpus(read_sources(path), seed)


def _split(key: str, held_out: float) -> str:
    """The split of a key: a hash decides, the same for every seed, source and language."""
    digest = hashlib.blake2b(normalize(key).lower().encode(), digest_size=8).digest()
    return HELD_OUT if int.from_bytes(digest, "big") < held_out * 2**64 else TRAIN


def _turned(pair: Pair) -> Pair:
    return Pair(pair.key, pair.target_language, pair.source_language, pair.target, pair.source)


def _names(x: str, y: str, how: str, rng: random.Random) -> tuple[str, str]:
    """Names of the two languages, in the language that `how` selects."""
    if how == "mixed":
        how = rng.choice(("english", "source", "target"))
    if how == "english":
        return get_language(x).name, get_language(y).name
    with optional(f"language_names={how!r}"):
        import babel

    names = babel.Locale.parse(x if how == "source" else y).languages
    return names.get(x, get_language(x).native_name), names.get(y, get_language(y).native_name)


def _records(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The records of a source, with their locations."""
    if source.tfds:
        yield from _tfds_records(source)
    elif source.seqio:
        yield from _seqio_records(source)
    else:
        for path in readers.expand_globs(source.files):
            columns = source.columns or _COLUMNS.get(source.kind, ())
            yield from readers.read_records(path, source.format, columns)


def _tfds_records(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import seqio

    options = {"tfds_data_dir": source.data_dir} if source.data_dir else {}
    data = seqio.TfdsDataSource(source.tfds, splits={"train": source.split}, **options)
    dataset = data.get_dataset("train", shuffle=False)
    for number, record in enumerate(dataset.as_numpy_iterator(), 1):
        yield f"{source.tfds}, record {number}", _plain(record)


def _seqio_records(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import seqio

    if source.module.endswith(".py"):
        spec = importlib.util.spec_from_file_location(
            pathlib.Path(source.module).stem, source.module
        )
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    elif source.module:
        importlib.import_module(source.module)
    task = seqio.get_mixture_or_task(source.seqio)
    options = {"use_cached": source.cached, "shuffle": False}
    dataset = task.get_dataset(sequence_length=None, split=source.split, **options)
    for number, record in enumerate(dataset.as_numpy_iterator(), 1):
        texts = {
            # Token ids of the task's own vocabulary become text again, for our tokenizer.
            name: task.output_features[name].vocabulary.decode(value)
            if name in task.output_features and isinstance(value, list)
            else value
            for name, value in _plain(record).items()
        }
        yield f"{source.seqio}, record {number}", texts


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a dataset as plain Python ones."""
    plain = {}
    for name, value in record.items():
        value = value.tolist() if hasattr(value, "tolist") else value
        plain[name] = value.decode() if isinstance(value, bytes) else value
    return plain
