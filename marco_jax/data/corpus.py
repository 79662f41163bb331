"""A corpus of declared sources (sources.py), of any size: training text is streamed, never held."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from marco_jax.data.dialogues import read_dialogues
from marco_jax.data.file_hashes import FileHashes
from marco_jax.data.input_parts import (
    InputPart,
    aligned_files,
    describe_input,
    english_by_id,
    group_parts,
    input_files,
    list_parts,
    part_bytes,
    read_input,
)
from marco_jax.data.readers import read_records
from marco_jax.data.record_errors import RecordErrors, check_text
from marco_jax.data.sources import Source
from marco_jax.data.templates import TEMPLATES, language_names, render_pair
from marco_jax.data.texts import (
    DIALOGUES,
    HELD_OUT,
    PARALLEL,
    PREFERENCE,
    TEXT,
    TRAIN,
    Document,
    Pair,
    SourceInfo,
    content_hash_of,
    is_held_out,
    is_long,
    join_neighbours,
    normalize,
)
from marco_jax.languages import language_code

# Pairs of one direction that a parallel document may hold.
PAIRS_A_DOCUMENT = 4
# Training pairs of an input that are kept as worked examples of a translation prompt.
EXAMPLE_PAIRS = 1000

# The value and the standard error of each metric.
TaskMetrics = Callable[[str, Sequence[int], Sequence[str]], dict[str, tuple[float, float]]]


class Corpus:
    """Documents by source and pairs by direction, in two splits.

    Attributes:
        errors: takes the reports of records that cannot be read.
        task_metrics: computes the metrics of registered tasks from their name, the indices of
            held-out examples, and what a model answers; None where there are no such tasks.
    """

    def __init__(self, sources: Sequence[Source], seed: int = 0, data_errors: str = "stop") -> None:
        """Declares the sources; reads nothing.

        Args:
            sources: in the order of source ids.
            seed: chooses templates, partners and names of languages, not what is held out.
            data_errors: what happens at a record that cannot be read; see RecordErrors.
        """
        self._sources = {source.name: source for source in sources}
        self._seed = seed
        self.errors = RecordErrors(data_errors)
        self.task_metrics: TaskMetrics | None = None
        self._leaked: frozenset[int] = frozenset()
        # The user's tasks: their infos and their held-out examples.
        self._tasks: dict[str, tuple[SourceInfo, Sequence[Mapping[str, Any]]]] = {}
        self._held_out = functools.cache(self._find_held_out)
        self._english = functools.cache(english_by_id)

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process makes the same corpus from."""
        return Corpus, (tuple(self._sources.values()), self._seed, self.errors.policy)

    def infos(self) -> list[SourceInfo]:
        """The sources, as declared."""
        tasks = (info for info, _ in self._tasks.values())
        return [*(source.info for source in self._sources.values()), *tasks]

    def sources(self) -> list[str]:
        """Names of the declared sources."""
        return list(self._sources)

    def add_task(self, info: SourceInfo, held_out: Sequence[Mapping[str, Any]]) -> None:
        """Adds a source that SeqIO alone reads.

        Args:
            info: its name, kind and language.
            held_out: examples that it holds out: "text", "index", and of prompts "prompt".
        """
        self._tasks[info.name] = (info, held_out)

    def held_out_examples(self, task: str) -> list[Mapping[str, Any]]:
        """The held-out examples of a user's task, as `add_task` took them.

        Raises:
            ValueError: there is none of this name.
        """
        if task not in self._tasks:
            known = ", ".join(self._tasks) or "none"
            raise ValueError(f"the run reads no registered task {task!r}; it reads {known}")
        _, rows = self._tasks[task]
        return [row for row in rows if not self._is_leaked(row.get("prompt", row["text"]))]

    def shards(self, source: str) -> list[list[InputPart]]:
        """The parts of a source in groups; its documents are theirs, one group after the other."""
        return group_parts(self._sources[source])

    def shard_bytes(self, source: str) -> list[int]:
        """Bytes of each of the shards, about; 0 where that is not known."""
        declared = self._sources[source]
        return [sum(part_bytes(declared, p) for p in shard) for shard in self.shards(source)]

    def documents(
        self, source: str, split: str, parts: Sequence[InputPart] | None = None
    ) -> Iterator[Document]:
        """The documents of a source, or of some of its parts, in a fixed order.

        Documents of preferences come in twos: the chosen one, then the rejected one. Of those that
        are held out there are at most `held_out_documents` of each input, and none that
        `leave_out` names.
        """
        if split == HELD_OUT and parts is None:
            # Read once: what leaks is known later, and is left out of what was read.
            yield from filter(None, map(self._without_leaks, self._held_out(source)))
            return
        declared = self._sources[source]
        for part in list_parts(declared) if parts is None else parts:
            yield from self._documents(declared, part, split)

    def texts(self, language: str, split: str) -> list[str] | Iterator[str]:
        """Plain texts of a language; a list where they are held out."""
        own = [info for info in self.infos() if (info.kind, info.language) == (TEXT, language)]
        if split == TRAIN:
            own = [info for info in own if info.name not in self._tasks]
        found = (d.text for info in own for d in self.documents(info.name, split))
        return list(found) if split == HELD_OUT else found

    def pairs(self, source_language: str, target_language: str, split: str) -> list[Pair]:
        """Pairs from one language to another: those held out, or some of the others.

        Pairs of the other direction are turned where this one has none.
        """
        known = self._pairs_by_direction
        found = known.get((source_language, target_language, split))
        if found is None:
            turned = known.get((target_language, source_language, split), [])
            found = [pair.turned() for pair in turned]
        if split == TRAIN:
            return found
        return [pair for pair in found if not self._is_leaked(pair.source, pair.target)]

    def source_fingerprint(self, source: str, hashes: FileHashes | None = None) -> str:
        """A hash of what is declared and of the content of its files, wherever they lie.

        Args:
            source: its name.
            hashes: keeps hashes of files that have not changed.
        """
        declared, hashes = self._sources[source], hashes or FileHashes()
        left_out = ("name", "inputs", "held_out_documents", "streamed")
        values = {name: value for name, value in vars(declared).items() if name not in left_out}
        seed = self._seed if declared.kind == PARALLEL else 0
        digest = hashlib.blake2b(json.dumps([values, seed], sort_keys=True).encode())
        for part in declared.inputs:
            digest.update(describe_input(part).encode())
            for path in input_files(part):
                digest.update(hashes.of(path).encode())
            for record in part.records:
                digest.update(json.dumps(record, sort_keys=True).encode())
        return digest.hexdigest()[:32]

    def held_out_texts(self) -> set[str]:
        """Every text that may be evaluated on."""
        found: set[str] = set()
        for info in self.infos():
            for document in self.documents(info.name, HELD_OUT):
                found.update(document.texts or (document.text,))
        for direction in self._pairs_by_direction:
            if HELD_OUT in direction:
                for pair in self.pairs(*direction):
                    found.update((pair.source, pair.target))
        return found

    def leave_out(self, hashes: Collection[int]) -> None:
        """Leaves out held-out texts with these hashes, which are found in training text too.

        Texts that are too short to be looked for (`is_long`) stay.
        """
        self._leaked = self._leaked | frozenset(int(h) for h in hashes)

    @functools.cached_property
    def _pairs_by_direction(self) -> Mapping[tuple[str, str, str], list[Pair]]:
        found: dict[tuple[str, str, str], list[Pair]] = {}
        for source in self._sources.values():
            if source.kind != PARALLEL:
                continue
            for split, limit in ((HELD_OUT, source.held_out_documents), (TRAIN, EXAMPLE_PAIRS)):
                for parts in _by_input(list_parts(source)):
                    pairs = (p for part in parts for p in self._pairs(source, part, split))
                    for pair in itertools.islice(pairs, limit):
                        key = (pair.source_language, pair.target_language, split)
                        found.setdefault(key, []).append(pair)
        return found

    def _find_held_out(self, source: str) -> list[Document]:
        if source in self._tasks:
            info, rows = self._tasks[source]
            return [
                Document(row["text"], info.language, source, row["text"], (), (row["prompt"],))
                if "prompt" in row
                else Document(row["text"], info.language, source, row["text"])
                for row in rows
            ]
        declared = self._sources[source]
        if not declared.held_out:
            return []
        sides = 2 if declared.kind == PREFERENCE else 1
        found: list[Document] = []
        for parts in _by_input(list_parts(declared)):
            documents = (d for part in parts for d in self._documents(declared, part, HELD_OUT))
            found += itertools.islice(documents, sides * declared.held_out_documents)
        return found

    def _without_leaks(self, document: Document) -> Document | None:
        """A held-out document without the texts that leak; None if nothing of it is left."""
        texts = document.texts or (document.text,)
        kept = tuple(text for text in texts if not self._is_leaked(text))
        if len(kept) == len(texts):
            return document
        # Joined texts are lines; the sides of a pair and a prompt are not, and belong together.
        if not kept or document.text != "\n".join(document.texts):
            return None
        return dataclasses.replace(document, text="\n".join(kept), texts=kept)

    def _is_leaked(self, *texts: str) -> bool:
        return bool(self._leaked) and any(
            is_long(text) and content_hash_of(text) in self._leaked for text in texts
        )

    def _documents(self, source: Source, part: InputPart, split: str) -> Iterator[Document]:
        if source.kind == PARALLEL:
            return self._rendered(source, self._pairs(source, part, split))
        if source.kind in DIALOGUES:
            return read_dialogues(source, part, self.errors, split == HELD_OUT)
        documents = self._texts(source, part, split)
        return join_neighbours(documents) if source.inputs[part.number].joined else documents

    def _texts(self, source: Source, part: InputPart, split: str) -> Iterator[Document]:
        declared, errors = source.inputs[part.number], self.errors
        field, _, second = declared.text.partition("+")
        english = {}
        if declared.english:
            english = self._english(declared.english, declared.format, field, declared.id)
        for index, (place, record) in enumerate(read_input(source, part, errors)):
            text = record.get(field)
            if declared.format == "lines" and text in ("", None):
                continue  # an empty line of an aligned file
            text = check_text(text, place, errors, field)
            if text is None or (second and not record.get(second)):
                continue
            text = normalize(f"{text}\n{record[second]}" if second else text)
            name = str(record.get(declared.id) or "")
            decides = record.get("english") or text
            if english:
                decides = english.get(name or str(index), decides)
            if is_held_out(decides, source.held_out) == (split == HELD_OUT):
                own = language_code(str(record.get("language") or ""))
                language = source.language or own or declared.language
                yield Document(text, language, source.name, name or text)

    def _pairs(self, source: Source, part: InputPart, split: str) -> Iterator[Pair]:
        aligned = bool(source.inputs[part.number].aligned)
        pairs = self._aligned(source, part) if aligned else self._given_pairs(source, part)
        for pair in pairs:
            # What is the same on both sides is not translated.
            if pair.source == pair.target:
                continue
            if is_held_out(pair.key, source.held_out) == (split == HELD_OUT):
                yield pair

    def _given_pairs(self, source: Source, part: InputPart) -> Iterator[Pair]:
        declared, errors = source.inputs[part.number], self.errors
        for place, record in read_input(source, part, errors):
            first, second = declared.languages or (
                str(record.get("source_language") or ""),
                str(record.get("target_language") or ""),
            )
            x = record.get("source", record.get(first))
            y = record.get("target", record.get(second))
            first, second = language_code(first) or first, language_code(second) or second
            if not isinstance(x, str) or not isinstance(y, str):
                errors.report(
                    place,
                    "not a pair",
                    'no pair of texts under "source" and "target", nor under '
                    f'"{first}" and "{second}"',
                )
                continue
            if check_text(x, place, errors) is None or check_text(y, place, errors) is None:
                continue
            x, y = normalize(x), normalize(y)
            key = record.get("english") or (y if second == "en" else x)
            yield Pair(key, first, second, x, y)

    def _aligned(self, source: Source, part: InputPart) -> Iterator[Pair]:
        """Lines of texts that mean the same, each paired between a few of the languages."""
        files = aligned_files(source.inputs[part.number].aligned)
        if len(files) < 2:
            raise ValueError(
                f"{source.name}: aligned names {list(files)}: two languages are needed"
            )
        streams = [read_records(path, "lines", (), self.errors) for path in files.values()]
        try:
            for number, lines in enumerate(zip(*streams, strict=True)):
                read = {
                    code: record["text"] for code, (_, record) in zip(files, lines, strict=True)
                }
                texts = {code: normalize(text) for code, text in read.items() if text}
                texts = {code: text for code, text in texts.items() if text}
                if len(texts) < 2:
                    continue
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

    def _rendered(self, source: Source, pairs: Iterable[Pair]) -> Iterator[Document]:
        """A few neighbouring pairs of one direction a document, under one template."""
        directions = itertools.groupby(pairs, lambda p: (p.source_language, p.target_language))
        for _, group in directions:
            while True:
                first = next(group, None)
                if first is None:
                    break
                rng = random.Random(f"{self._seed} {first.key} {first.target}")
                chunk = [first, *itertools.islice(group, rng.randrange(PAIRS_A_DOCUMENT))]
                yield _render(source, chunk, rng)
                if source.both_directions:
                    yield _render(source, [pair.turned() for pair in chunk], rng)


def _by_input(parts: Sequence[InputPart]) -> Iterator[list[InputPart]]:
    for _, group in itertools.groupby(parts, lambda part: part.number):
        yield list(group)


def _render(source: Source, pairs: Sequence[Pair], rng: random.Random) -> Document:
    x, y = pairs[0].source_language, pairs[0].target_language
    names = language_names(x, y, source.language_names, rng)
    template = rng.randrange(len(TEMPLATES))
    texts = [render_pair(template, *names, pair.source, pair.target) for pair in pairs]
    sides = tuple(side for pair in pairs for side in (pair.source, pair.target))
    return Document("\n\n".join(texts), y, source.name, pairs[0].key, (), sides)
