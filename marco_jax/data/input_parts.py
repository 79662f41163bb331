"""Records of a source's inputs, part by part: parts are what processes share out among them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from marco_jax.data.readers import expand_globs, read_records, split_spans
from marco_jax.data.record_errors import RecordErrors
from marco_jax.data.sources import Input, Source
from marco_jax.data.text_lines import Span
from marco_jax.data.texts import CHAT, PREFERENCE, PROMPT
from marco_jax.files import as_path, glob_paths
from marco_jax.languages import LANGUAGES

# Bytes of a part: fewer where a source would have fewer parts than _SHARED to share out among
# processes, but not below _LEAST_BYTES; more where it would have more than _MOST_PARTS.
PART_BYTES = 16 << 20
_LEAST_BYTES = 4 << 20
_SHARED = 8
_MOST_PARTS = 1024

# Columns of TSV files of conversations, preferences and prompts.
_COLUMNS = {
    CHAT: ("prompt", "response"),
    PREFERENCE: ("prompt", "chosen", "rejected"),
    PROMPT: ("prompt", "reference"),
}

Record = Mapping[str, Any]


class InputPart(NamedTuple):
    """A part of a source: a file of an input, some bytes of it, or ("") a whole input."""

    number: int
    path: str = ""
    span: Span | None = None


def list_parts(source: Source) -> list[InputPart]:
    """The parts of a source in the order of its documents: the same wherever it is asked for.

    Raises:
        FileNotFoundError: a pattern of files that matches nothing.
    """
    parts = []
    for number, part in enumerate(source.inputs):
        if not part.files:
            parts.append(InputPart(number))
            continue
        for path in expand_globs(part.files):
            spans: list[Span | None] = [None]
            # The n-th line of a file that belongs to the n-th of another needs those before it.
            if not part.english:
                size = as_path(path).stat().st_size
                spans = split_spans(path, part.format, _bytes_of_part(size))
            parts += [InputPart(number, path, span) for span in spans]
    return parts


def group_parts(source: Source) -> list[list[InputPart]]:
    """The parts of a source in groups of about PART_BYTES: small files share one.

    A source of very many parts has larger groups.
    """
    groups: list[list[InputPart]] = []
    parts = list_parts(source)
    sizes = [part_bytes(source, part) for part in parts]
    most = _bytes_of_part(sum(sizes))
    filled = 0
    for part, size in zip(parts, sizes, strict=True):
        if not groups or filled + size > most:
            groups.append([])
            filled = 0
        groups[-1].append(part)
        filled += size
    return groups


def _bytes_of_part(total: int) -> int:
    """How many bytes the parts of a source of `total` bytes have."""
    return max(min(PART_BYTES, max(total // _SHARED, _LEAST_BYTES)), total // _MOST_PARTS)


def part_bytes(source: Source, part: InputPart) -> int:
    """Bytes of a part on disk, or characters of given records; 0 where that is not known."""
    if records := source.inputs[part.number].records:
        return sum(len(str(value)) for record in records for value in record.values())
    if part.span:
        return part.span[1] - part.span[0]
    return as_path(part.path).stat().st_size if part.path else 0


def input_files(part: Input) -> list[str]:
    """The files that an input's records come from, as far as they are known.

    Of a SeqIO task that is the module that registers it, where it is a file; given records have
    none.
    """
    files = [path for patterns in (part.files, part.aligned) for path in expand_globs(patterns)]
    if part.tfds:
        name, _, version = part.tfds.partition(":")
        home = part.data_dir or str(pathlib.Path.home() / "tensorflow_datasets")
        files += glob_paths(f"{home}/{name}/{version or '*'}/*")
    module = part.module if part.module.endswith(".py") else ""
    return [*files, *filter(None, (part.english, module))]


def read_input(
    source: Source, part: InputPart, errors: RecordErrors
) -> Iterator[tuple[str, Record]]:
    """The records of a part, each with its location."""
    declared = source.inputs[part.number]
    if declared.repeated:
        errors = RecordErrors("skip", logged=0)
    if declared.tfds:
        records = _tfds_records(declared)
    elif declared.seqio:
        records = _seqio_records(declared)
    elif declared.records:
        records = (
            (f"{source.name}, record {n}", record) for n, record in enumerate(declared.records, 1)
        )
    else:
        columns = declared.columns or _COLUMNS.get(source.kind, ())
        # Lines of other languages need not be parsed, where another input reports the bad ones.
        first = next(iter(declared.where.values()), "")
        containing = json.dumps(first) if declared.repeated and first else ""
        records = read_records(part.path, declared.format, columns, errors, part.span, containing)
    if not declared.where:
        return iter(records)
    wanted = declared.where.items()
    return (
        (place, record)
        for place, record in records
        if all(record.get(name, "") == value for name, value in wanted)
    )


def aligned_files(patterns: Sequence[str]) -> dict[str, str]:
    """The files of aligned texts by their language, which their names begin with."""
    files = {}
    for path in expand_globs(patterns):
        code = pathlib.PurePath(path).name.partition(".")[0]
        if code in LANGUAGES:
            files[code] = path
    return files


def english_by_id(path: str, form: str, field: str, id_field: str) -> dict[str, str]:
    """English texts by the id of their record, or by the number of their line, from 0."""
    texts = {}
    records = read_records(path, form, (), RecordErrors("skip"))
    for index, (_, record) in enumerate(records):
        text = record.get(field)
        if isinstance(text, str) and text.strip():
            texts[str(record.get(id_field) or index)] = text
    return texts


def _tfds_records(declared: Input) -> Iterator[tuple[str, Record]]:
    import seqio

    options = {"tfds_data_dir": declared.data_dir} if declared.data_dir else {}
    data = seqio.TfdsDataSource(declared.tfds, splits={"train": declared.split}, **options)
    dataset = data.get_dataset("train", shuffle=False)
    for number, record in enumerate(dataset.as_numpy_iterator(), 1):
        yield f"{declared.tfds}, record {number}", _plain(record)


def _seqio_records(declared: Input) -> Iterator[tuple[str, Record]]:
    import seqio

    import_module(declared.module)
    task = seqio.get_mixture_or_task(declared.seqio)
    options = {"use_cached": declared.cached, "shuffle": False}
    dataset = task.get_dataset(sequence_length=None, split=declared.split, **options)
    for number, record in enumerate(dataset.as_numpy_iterator(), 1):
        texts = {
            # Token ids of the task's own vocabulary become text again, for our tokenizer.
            name: task.output_features[name].vocabulary.decode(value)
            if name in task.output_features and isinstance(value, list)
            else value
            for name, value in _plain(record).items()
        }
        yield f"{declared.seqio}, record {number}", texts


_imported: set[str] = set()


def import_module(module: str) -> None:
    """Imports a module by its name or by the path of its file, once; "" is none.

    Raises:
        ValueError: it cannot be found or imported; the message has the reason.
    """
    if not module or module in _imported:
        return
    # Modules of the user's project are found from the folder that the command is given in.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(pathlib.Path(module).stem, module)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        else:
            importlib.import_module(module)
    except Exception as error:  # whatever the user's module raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"the module {module!r} cannot be imported: {reason}") from error
    _imported.add(module)


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a dataset as plain Python ones."""
    plain = {}
    for name, value in record.items():
        value = value.tolist() if hasattr(value, "tolist") else value
        plain[name] = value.decode() if isinstance(value, bytes) else value
    return plain


def describe_input(part: Input) -> str:
    """What an input reads and how, without where it lies: JSON, equal for equal declarations."""
    left_out = ("files", "aligned", "data_dir", "module", "english", "records", "repeated")
    values = {name: value for name, value in vars(part).items() if name not in left_out}
    values["english"] = bool(part.english)
    return json.dumps(values, sort_keys=True)
