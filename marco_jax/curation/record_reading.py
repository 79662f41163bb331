"""Transforms that read raw files as documents and sentence pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from marco_jax.curation.curation_config import field_names
from marco_jax.curation.documents import RawDocument, document_of, is_tsv, pair_of
from marco_jax.curation.inputs import Part, parts_of, read
from marco_jax.curation.shingles import hash64
from marco_jax.extras import optional

with optional():
    import apache_beam as beam
    from apache_beam.metrics import Metrics

# The outputs of ReadRecords.
DOCUMENTS, PAIRS, FAULTS = "documents", "pairs", "faults"


class ReadRecords(beam.PTransform):
    """Reads files of any kind that `marco curate` takes, through Beam's file systems.

    The outputs are `documents` and `pairs` (of TSV files), and `faults`: why a record could not be
    read, a text for each.
    """

    def __init__(self, files: Iterable[str], fields: str = "") -> None:
        """Sets what to read.

        Args:
            files: paths, local or of an object store that Beam knows.
            fields: names of the records' fields, as `config.fields`.
        """
        super().__init__()
        self._files, self._fields = tuple(files), field_names(fields)

    def expand(self, pipeline: beam.pvalue.PBegin) -> beam.pvalue.DoOutputsTuple:
        """From the start of a pipeline to the three outputs."""
        return (
            pipeline
            | "files" >> beam.Create(self._files, reshuffle=False)
            | "parts" >> beam.FlatMap(_parts)
            | "spread" >> beam.Reshuffle()
            | "read" >> beam.ParDo(_Read(self._fields)).with_outputs(PAIRS, FAULTS, main=DOCUMENTS)
        )


def _parts(path: str) -> list[Part]:
    return parts_of([path])


class _Read(beam.DoFn):
    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def process(self, part: Part) -> Iterator[RawDocument]:
        pairs = is_tsv(part.path)
        for record in read(part):
            try:
                if record.fields is None:
                    raise ValueError(record.fault)
                if pairs:
                    document = pair_of(record.fields, part.path)
                else:
                    document = document_of(record.fields, self._fields)
            except ValueError as error:
                Metrics.counter("curation", f"unreadable: {error}").inc()
                yield beam.pvalue.TaggedOutput(FAULTS, str(error))
                continue
            # 63 bits, since the integers of a Beam row are signed.
            origin = hash64(f"{part.path}\0{record.position}") >> 1
            document = dataclasses.replace(document, origin=origin)
            yield beam.pvalue.TaggedOutput(PAIRS, document) if pairs else document
