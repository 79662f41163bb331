"""The base of transforms that judge one document after another: what is rejected has its output.

A stage is a `beam.PTransform` from documents to two outputs, `kept` and `rejected`. A rejected
document carries its stage and reason, and is counted by the Beam metric "curation/STAGE: REASON".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from marco_jax.curation.documents import RawDocument
from marco_jax.curation.tally import fate_of
from marco_jax.extras import optional

with optional():
    import apache_beam as beam
    from apache_beam.coders import registry
    from apache_beam.metrics import Metrics

    # Documents pass between workers as Beam rows.
    registry.register_row(RawDocument)

# The outputs of a stage.
KEPT, REJECTED = "kept", "rejected"

Judge = Callable[[RawDocument], RawDocument]


def outcome_of(document: RawDocument) -> Any:
    """A document as the output of a stage: tagged, and counted, if it was rejected."""
    if not document.stage:
        return document
    _, stage, reason = fate_of(document)
    Metrics.counter("curation", f"{stage}: {reason}").inc()
    return beam.pvalue.TaggedOutput(REJECTED, document)


class DocumentStage(beam.PTransform):
    """A stage that judges each document by itself; subclasses say how in `judge`.

    `judge` is called once a worker, so that what it loads serves all documents of the worker.
    """

    def judge(self) -> Judge:
        """Returns the function that changes documents or marks them as rejected."""
        raise NotImplementedError

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `kept` and `rejected`."""
        return documents | beam.ParDo(_JudgeEach(self)).with_outputs(REJECTED, main=KEPT)


class _JudgeEach(beam.DoFn):
    def __init__(self, stage: DocumentStage) -> None:
        self._stage = stage

    def setup(self) -> None:
        self._judge = self._stage.judge()

    def process(self, document: RawDocument) -> Iterator[RawDocument]:
        yield outcome_of(self._judge(document))
