"""Makes the prompts of a benchmark in a language from its files."""

from __future__ import annotations

import difflib
import itertools
import logging
import os
from collections.abc import Iterator, Mapping

from marco_jax.evaluation.benchmarks.items import (
    Item,
    LeftOut,
    UnusableRow,
    read_item,
    text_fields,
)
from marco_jax.evaluation.benchmarks.rendering import Prompt, Renderer
from marco_jax.evaluation.benchmarks.row_files import DataError
from marco_jax.evaluation.benchmarks.shots import ShotSampler
from marco_jax.evaluation.benchmarks.source_files import Files, split_pair
from marco_jax.evaluation.benchmarks.spec import TEXTS, Benchmark, Format
from marco_jax.evaluation.benchmarks.tables import BENCHMARKS
from marco_jax.evaluation.benchmarks.tables.translation import OTHER_NAMES
from marco_jax.files import as_path
from marco_jax.languages import LANGUAGES

_log = logging.getLogger(__name__)


def get_benchmark(task: str) -> Benchmark:
    """Looks up a benchmark by name; the ValueError for an unknown one gives the nearest."""
    if task in BENCHMARKS:
        return BENCHMARKS[task]
    near = difflib.get_close_matches(task, BENCHMARKS, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(BENCHMARKS)}"
    raise ValueError(f"task {task!r} is unknown: {remedy}")


def get_format(benchmark: Benchmark, name: str | None) -> Format:
    """Looks up a benchmark's format by name; None for the default, ValueError if unknown."""
    if name is None:
        return next(iter(benchmark.formats.values()))
    if name not in benchmark.formats:
        known = ", ".join(benchmark.formats)
        raise ValueError(f"format {name!r} of {benchmark.name} is unknown: choose one of {known}")
    return benchmark.formats[name]


def available_languages(
    task: str, data_dir: str | os.PathLike, split: str | None = None
) -> list[str]:
    """Languages of a benchmark that have files below a data directory, of a split or of any."""
    benchmark = get_benchmark(task)
    root = as_path(data_dir)
    splits = (split,) if split else benchmark.splits
    return [
        language
        for language in benchmark.languages
        if any(map(Files(benchmark, language, root).has, splits))
    ]


class PromptIterator(Iterator[Prompt]):
    """Iterates over prompts; `left_out` has the rows left out of the parts read so far."""

    def __init__(self, found: Iterator[Prompt], left_out: list[LeftOut]) -> None:
        self._found, self.left_out = found, left_out

    def __next__(self) -> Prompt:
        return next(self._found)


def prompts(
    task: str,
    language: str,
    data_dir: str | os.PathLike,
    *,
    format: str | None = None,
    shots: int | None = None,
    limit: int | None = None,
    split: str | None = None,
    part: str | None = None,
) -> PromptIterator:
    """Yields the prompts of a benchmark, part after part, in the order of the files.

    Rows that the benchmark leaves out, such as those without an answer in a release that has some,
    are logged, and counted in `left_out` of the iterator.

    Args:
        task: a key of `BENCHMARKS`.
        language: one of its codes; a pair such as "en-kk" for translation between any two.
        data_dir: the benchmark's folder, or the folder that holds it.
        format: one of the benchmark's formats, by default the first.
        shots: shots before each item, by default the paper's number.
        limit: at most so many items of each part; it does not change their shots.
        split: the split to evaluate, by default the benchmark's first that has files.
        part: a subject, by default all.

    Raises:
        ValueError: the task, language, format, split or part is unknown, or a number too small.
        FileNotFoundError: there are no files; the message gives the path where they should be.
        DataError: a file is damaged, or has too few examples for the shots.
    """
    benchmark = get_benchmark(task)
    form = get_format(benchmark, format)
    language = _language(benchmark, language)
    shots = benchmark.default_shots(form) if shots is None else shots
    check_at_least("shots", shots, 0)
    check_at_least("limit", limit, 1)
    root = as_path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"data_dir {root} is not a directory")
    files = Files(benchmark, language, root)
    split = _split(files, split)
    parts = _parts(files, split, part)
    # Not a generator function: invalid arguments raise here, not at the first iteration.
    left_out: list[LeftOut] = []
    found = itertools.chain.from_iterable(
        _part_prompts(files, form, split, name, shots, limit, left_out) for name in parts
    )
    return PromptIterator(found, left_out)


def _language(benchmark: Benchmark, language: str) -> str:
    if language in benchmark.languages and benchmark.pairs != "any":
        return language
    by_code = {code: name for name, code in benchmark.codes.items()}
    if language in by_code and benchmark.pairs != "any":
        return by_code[language]
    if benchmark.pairs in ("any", "context"):
        sides = [side for side in language.split("-") if side]
        if len(sides) == 2 and (benchmark.pairs == "context" or sides[0] != sides[1]):
            known = [by_code.get(side, side) for side in sides]
            if all(side in benchmark.languages for side in known):
                return "-".join(known)
        if benchmark.pairs == "any":
            raise ValueError(
                f"language {language!r} of {benchmark.name} must be a pair such as en-kk, "
                f"of {', '.join(benchmark.languages)}"
            )
    if benchmark.open_codes and len(language) == 8 and language[3] == "_":
        return language
    known = ", ".join(benchmark.languages)
    raise ValueError(f"language {language!r} of {benchmark.name} is unknown: choose one of {known}")


def check_at_least(name: str, value: int | None, least: int) -> None:
    """Raises a ValueError about the argument `name` if its value is too small."""
    if value is not None and value < least:
        raise ValueError(f"{name} is {value}: it must be at least {least}")


def check_split(benchmark: Benchmark, split: str | None) -> None:
    """Raises a ValueError if a benchmark does not have the split that is named."""
    if split is not None and split not in benchmark.sources:
        known = ", ".join(benchmark.sources)
        raise ValueError(f"split {split!r} of {benchmark.name} is unknown: choose one of {known}")


def _split(files: Files, split: str | None) -> str:
    """The split to evaluate: the first of the wanted ones that has files."""
    benchmark, language = files.benchmark, files.language
    check_split(benchmark, split)
    wanted = (split,) if split else benchmark.splits
    for name in wanted:
        if files.has(name):
            if name != wanted[0]:
                _log.warning(
                    "%s %s: no %s files, the %s split is used",
                    benchmark.name, language, wanted[0], name,
                )  # fmt: skip
            return name
    path = files.expected_path(wanted[0], benchmark.parts_of(language)[0])
    raise FileNotFoundError(f"{benchmark.name} in {language} has no files: {path} is missing")


def _parts(files: Files, split: str, part: str | None) -> tuple[str, ...]:
    """The parts to evaluate: the wanted one, or all that have files."""
    benchmark, language = files.benchmark, files.language
    parts = benchmark.parts_of(language)
    if part is not None:
        if part not in parts:
            near = difflib.get_close_matches(part, parts, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(parts)}"
            raise ValueError(f"part {part!r} of {benchmark.name} is unknown: {remedy}")
        if not files.find(split, part):
            path = files.expected_path(split, part)
            raise FileNotFoundError(f"{benchmark.name} {part} has no files: {path} is missing")
        return (part,)
    found = tuple(name for name in parts if files.find(split, name))
    if len(found) < len(parts):
        missing = [name for name in parts if name not in found]
        _log.warning(
            "%s %s: %d of %d parts have no %s files (%s, ..)",
            benchmark.name, language, len(missing), len(parts), split, missing[0],
        )  # fmt: skip
    return found


def _part_prompts(
    files: Files,
    form: Format,
    split: str,
    part: str,
    shots: int,
    limit: int | None,
    left_out: list[LeftOut],
) -> Iterator[Prompt]:
    words = _words(files.benchmark, files.language)
    items = _items(files, form, split, part, words, left_out)
    pool_split = split
    pool: list[Item] = []
    if shots:
        names = form.pool or ("train", "validation", "test")
        pool_split = next((name for name in names if files.find(name, part)), "")
        if not pool_split:
            if present := files.paths(names[0], part):
                problem = f"{present[0]} has no examples of {part or files.language}"
                raise DataError(f"shots is {shots}: {problem} to show, set shots to 0")
            path = files.expected_path(names[0], part)
            raise FileNotFoundError(f"shots is {shots}: {path} with examples to show is missing")
        same = pool_split == split
        pool = items if same else _items(files, form, pool_split, part, words, left_out)
        shots = min(shots, len(pool)) if form.up_to else shots
    excludes = pool_split == split if form.excludes_item is None else form.excludes_item
    sampler = ShotSampler(form.sampler, pool, shots, excludes)
    renderer = Renderer(files.benchmark, form, files.language, part, words)
    for index, item in enumerate(items[:limit]):
        yield renderer.prompt(index, item, sampler.draw(item))


def _items(
    files: Files,
    form: Format,
    split: str,
    part: str,
    words: Mapping[str, str],
    left_out: list[LeftOut],
) -> list[Item]:
    """The items of a part of a split; adds the rows that are left out to `left_out`."""
    benchmark = files.benchmark
    found = files.find(split, part)
    fields = text_fields(benchmark, files.language)
    choices = len(form.choices) if isinstance(form.choices, tuple) else 0
    kept: list[Item] = []
    reasons: dict[str, LeftOut] = {}
    for row in files.rows(found):
        try:
            item = read_item(
                *(row, benchmark, files.language, fields), choices=choices, words=words
            )
            if form.choices == TEXTS and item.letters != len(item.options):
                raise UnusableRow("the options are one text, which has to be scored in parts")
            kept.append(item)
        except UnusableRow as error:
            entry = LeftOut(part, split, str(error), 0, row.location)
            reasons.setdefault(str(error), entry).count += 1
    for entry in reasons.values():
        _log.warning(
            "%s %s%s: %d of the %s split are left out, %s (%s)",
            benchmark.name, files.language, f" {part}" if part else "", entry.count, split,
            entry.reason, f"first {entry.first}",
        )  # fmt: skip
    left_out += reasons.values()
    if not kept:
        raise DataError(f"{found.paths[0]} holds no items of {benchmark.name} {part}".rstrip())
    return kept


def _words(benchmark: Benchmark, language: str) -> dict[str, str]:
    """A language's words for templates, with the names of the source and target language."""
    source, target = split_pair(benchmark, language)
    words = dict(benchmark.words.get(language, benchmark.words.get("", {})))
    for side, code in (("source", source), ("target", target)):
        name = LANGUAGES[code].name if code in LANGUAGES else OTHER_NAMES.get(code)
        if name:
            words.setdefault(f"{side}_language", name)
    return words
