"""Finds a benchmark's files below a data directory and reads their items."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping

from marco_jax.evaluation.benchmarks.items import find
from marco_jax.evaluation.benchmarks.row_files import Row, read_benchmark_rows
from marco_jax.evaluation.benchmarks.spec import Benchmark, RowSource

# Columns of a parallel file that may hold a language's text; {0} is the language code.
_SIDES = ("translation.{0}", "sentence_{0}", "{0}")
# Columns of the sentence in files of one language that are joined by id.
_SENTENCE = ("text", "sentence")


@dataclasses.dataclass(frozen=True)
class Found:
    """The files of a split that match a source, sorted, and the values of its placeholders.

    `targets` are the files with the other side of translation pairs, one for each path.
    """

    source: RowSource
    paths: tuple[pathlib.Path, ...]
    targets: tuple[pathlib.Path, ...]
    fields: Mapping[str, str]


class Files:
    """The files of a benchmark in one language (or pair)."""

    def __init__(self, benchmark: Benchmark, language: str, data_dir: pathlib.Path) -> None:
        """`data_dir` is the benchmark's folder, or the folder that holds it."""
        self.benchmark, self.language = benchmark, language
        self._roots = [data_dir / benchmark.folder, data_dir]
        source, target = split_pair(benchmark, language)
        codes = benchmark.codes
        code = codes.get(language, language)
        self._fields = {
            "language": language,
            "code": code,
            "config": code.replace("-", "_"),
            **_side_fields(codes.get(source, source)),
            "target": codes.get(target, target),
        }

    def find(self, split: str, part: str = "") -> Found | None:
        """The files of a split, from the first source that has any; None if there are none.

        A file that holds several parts is found for the parts that it has rows of.
        """
        fields = {**self._fields, "part": part}
        for root in self._roots:
            for source in self.benchmark.sources.get(split, ()):
                paths, targets = (
                    tuple(sorted(root.glob(_fill(pattern, fields)))) if pattern else ()
                    for pattern in (source.path, source.target_path)
                )
                if source.form == "tfds":
                    # Folders of versions: the last one is the newest.
                    paths = tuple(path for path in paths if _is_prepared(path))[-1:]
                if not paths or (source.target_path and not targets):
                    continue
                found = Found(source, paths, targets, fields)
                # Other languages or parts may have the rows of a file that holds several.
                if not any("{" in value for value in source.where.values()) or self.rows(found):
                    return found
        return None

    def paths(self, split: str, part: str = "") -> list[pathlib.Path]:
        """The files of a split, whatever rows they have."""
        fields = {**self._fields, "part": part}
        return [
            path
            for root in self._roots
            for source in self.benchmark.sources.get(split, ())
            for path in sorted(root.glob(_fill(source.path, fields)))
            if source.form != "tfds" or _is_prepared(path)
        ]

    def has(self, split: str) -> bool:
        """Whether any part of a split has files."""
        return any(self.find(split, part) for part in self.benchmark.parts_of(self.language))

    def expected_path(self, split: str, part: str = "") -> str:
        """The path where the files of a split should be, for messages."""
        sources = self.benchmark.sources.get(split, ())
        if not sources:
            return f"no {split} split"
        return str(self._roots[0] / _fill(sources[0].path, {**self._fields, "part": part}))

    def rows(self, found: Found) -> list[Row]:
        """Reads the rows of found files that belong to the language and the part."""
        rows = _wanted_rows(_read(found.source, found.paths), found.source, found.fields)
        if found.targets:
            fields = {**found.fields, **_side_fields(found.fields["target"])}
            targets = _wanted_rows(_read(found.source, found.targets), found.source, fields)
            if found.source.where and not (rows and targets):
                return []
            rows = _join(rows, targets, found.paths[0], found.targets[0])
        if self.benchmark.pairs in ("any", "from_en", "to_en") and not found.targets:
            rows = [self._sides(row) for row in rows]
        return rows

    def _sides(self, row: Row) -> Row:
        """Converts a row of a parallel file to one with the fields source and target."""
        sides = {
            side: find(row, tuple(name.format(self._fields[side]) for name in _SIDES))
            for side in ("source", "target")
        }
        return Row(sides, row.location)


def split_pair(benchmark: Benchmark, language: str) -> tuple[str, str]:
    """Splits a benchmark's language into source and target (or context and question) language."""
    if benchmark.pairs == "from_en":
        return "en", language
    if benchmark.pairs == "to_en":
        return language, "en"
    source, dash, target = language.partition("-")
    return (source, target) if benchmark.pairs and dash else (language, language)


def _is_prepared(path: pathlib.Path) -> bool:
    """Whether a path is the folder of a prepared TFDS dataset."""
    return (path / "dataset_info.json").is_file()


def _side_fields(code: str) -> dict[str, str]:
    """The values of placeholders about the source (or target) of a pair, from its code."""
    language, _, script = code.partition("_")
    return {"source": code, "source_639": language, "source_15924": script}


def _fill(pattern: str, fields: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], pattern)


def _wanted_rows(rows: list[Row], source: RowSource, fields: Mapping[str, str]) -> list[Row]:
    """The rows that `source.where` keeps."""
    for name, pattern in source.where.items():
        wanted = _fill(pattern, fields)
        rows = [row for row in rows if _is_wanted(row, name, wanted)]
    return rows


def _is_wanted(row: Row, name: str, wanted: str) -> bool:
    value = str(find(row, (name,)))
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted


# Cached because a file with all subjects or languages is needed again for each of them.
@functools.lru_cache(maxsize=4)
def _read_cached(source: RowSource, paths: tuple[pathlib.Path, ...], stamps: tuple) -> list[Row]:
    return [row for path in paths for row in read_benchmark_rows(path, source)]


def _read(source: RowSource, paths: tuple[pathlib.Path, ...]) -> list[Row]:
    stamps = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    return _read_cached(source, paths, stamps)


def _join(
    sources: list[Row], targets: list[Row], source_path: pathlib.Path, target_path: pathlib.Path
) -> list[Row]:
    """Joins rows by id, never by line, into rows with the fields id, source and target."""
    by_id = {}
    for row in targets:
        if by_id.setdefault(find(row, ("id",)), row) is not row:
            row.fail(f"id {row.fields['id']!r} occurs twice")
    joined, seen = [], set()
    for row in sources:
        key = find(row, ("id",))
        if key in seen:
            row.fail(f"id {key!r} occurs twice")
        seen.add(key)
        if key not in by_id:
            row.fail(f"id {key!r} is not in {target_path}: the files must hold the same ids")
        other = by_id[key]
        fields = {"id": key, "source": find(row, _SENTENCE), "target": find(other, _SENTENCE)}
        joined.append(Row(fields, row.location))
    if len(by_id) > len(joined):
        extra = next(row for key, row in by_id.items() if key not in seen)
        extra.fail(f"id {extra.fields['id']!r} is not in {source_path}: ids must be the same")
    return joined
