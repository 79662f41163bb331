"""Transforms that read raw files as documents and sentence pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

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

    def __init__(self, files: Iterable[str]) -> None:
        """Takes paths of files, local or of an object store that Beam knows."""
        super().__init__()
        self._files = tuple(files)

    def expand(self, pipeline: beam.pvalue.PBegin) -> beam.pvalue.DoOutputsTuple:
        """From the start of a pipeline to the three outputs."""
        return (
            pipeline
            | "files" >> beam.Create(self._files, reshuffle=False)
            | "parts" >> beam.FlatMap(_parts)
            | "spread" >> beam.Reshuffle()
            | "read" >> beam.ParDo(_Read()).with_outputs(PAIRS, FAULTS, main=DOCUMENTS)
        )


def _parts(path: str) -> list[Part]:
    return parts_of([path])


class _Read(beam.DoFn):
    def process(self, part: Part) -> Iterator[RawDocument]:
        pairs = is_tsv(part.path)
        for number, (record, fault) in enumerate(read(part)):
            try:
                if record is None:
                    raise ValueError(fault)
                document = pair_of(record, part.path) if pairs else document_of(record)
            except ValueError as error:
                Metrics.counter("curation", f"unreadable: {error}").inc()
                yield beam.pvalue.TaggedOutput(FAULTS, str(error))
                continue
            # 63 bits, since the integers of a Beam row are signed.
            origin = hash64(f"{part.path}\0{part.start}\0{number}") >> 1
            document = dataclasses.replace(document, origin=origin)
            yield beam.pvalue.TaggedOutput(PAIRS, document) if pairs else document
