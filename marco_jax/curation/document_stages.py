"""The stages that judge one document at a time, as Beam transforms.

Each is a `PTransform` from documents to the outputs `kept` and `rejected`, and can be used alone:

    found = documents | IdentifyLanguage(languages="kk,ne")
    found.kept | ...
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

from marco_jax.curation import boilerplate, cascade
from marco_jax.curation.curation_config import bits_by_language, codes
from marco_jax.curation.decontamination import BenchmarkItems
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.inputs import benchmark_items
from marco_jax.curation.pair_rules import bad_pair
from marco_jax.curation.personal import mask
from marco_jax.curation.stages import KEPT, REJECTED, DocumentStage, Judge, outcome_of
from marco_jax.curation.urls import bad_url
from marco_jax.extras import optional

with optional():
    import apache_beam as beam
    from apache_beam.utils.shared import Shared

# Documents per call of the perplexity model.
SCORE_BATCH = 64

# (texts, languages) -> perplexity in bits per byte, which is comparable across vocabularies.
BitsPerByte = Callable[[list[str], list[str]], list[float]]


class UrlRules(DocumentStage):
    """Rejects documents by their address: adult content, spam, piracy, blocked hosts."""

    def __init__(self, blocked: Iterable[str] = ()) -> None:
        """Blocks hosts, with their subdomains."""
        super().__init__()
        self._blocked = frozenset(blocked)

    def judge(self) -> Judge:
        """Judges by the URL; documents without one pass."""
        return functools.partial(_judged_url, blocked=self._blocked)


class ExtractText(DocumentStage):
    """Extracts the main text of HTML pages, and normalises the text of all documents."""

    def judge(self) -> Judge:
        """Extracts and normalises."""
        return cascade.extract_text


class DamageRules(DocumentStage):
    """Rejects damaged text, which would confuse language identification."""

    def judge(self) -> Judge:
        """Judges by replacement characters and mojibake."""
        return cascade.judge_damage


class IdentifyLanguage(DocumentStage):
    """Sets the language of documents, and removes their lines in other languages.

    Documents in a language other than the one that they claim, or that is asked for, are rejected,
    as are those of which too much is in another language.
    """

    def __init__(self, languages: str = "", foreign_lines: float = 0.3) -> None:
        """Sets what to keep.

        Args:
            languages: codes, comma-separated; empty for all.
            foreign_lines: largest share of text in lines of another language.
        """
        super().__init__()
        self._accepted, self._foreign = codes(languages), foreign_lines

    def judge(self) -> Judge:
        """Identifies the language."""
        return functools.partial(
            cascade.judge_language, foreign=self._foreign, accepted=self._accepted
        )


class Heuristics(DocumentStage):
    """Rejects documents by the quality rules of their language, which must have been identified."""

    def judge(self) -> Judge:
        """Judges by length, and by the rules for machine-made text and for prose."""
        return cascade.judge_prose


class RemoveLines(beam.PTransform):
    """Removes the lines of documents that `SharedLines` found; rejects what has no other."""

    def __init__(self, shared: beam.PCollection) -> None:
        """Takes the output of SharedLines."""
        super().__init__()
        self._shared = shared

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `kept` and `rejected`."""
        function = beam.ParDo(_RemoveLines(), beam.pvalue.AsList(self._shared))
        return documents | function.with_outputs(REJECTED, main=KEPT)


class _RemoveLines(beam.DoFn):
    def start_bundle(self) -> None:
        self._hashes: frozenset[int] | None = None

    def process(self, document: RawDocument, shared: list[list[int]]) -> Iterator[RawDocument]:
        if self._hashes is None:
            self._hashes = frozenset(one % (1 << 64) for part in shared for one in part)
        text = boilerplate.without_lines(document.text, self._hashes)
        document = dataclasses.replace(document, text=text)
        yield outcome_of(document if text else document.rejected("boilerplate", "nothing else"))


class MaskPersonal(beam.PTransform):
    """Masks personal data in documents, by the conventions of their language."""

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """From documents to documents."""
        return documents | beam.Map(_masked).with_output_types(RawDocument)


class Decontaminate(DocumentStage):
    """Rejects documents that hold a benchmark item."""

    def __init__(self, benchmarks: str) -> None:
        """Takes JSONL files of items, comma-separated; workers read them, once a process."""
        super().__init__()
        self._files, self._shared = benchmarks, Shared()

    def judge(self) -> Judge:
        """Judges by the index of all items."""
        items = self._shared.acquire(lambda: BenchmarkItems(benchmark_items(self._files)))
        return functools.partial(_without_items, items=items)


class PairRules(DocumentStage):
    """Rejects sentence pairs that break a rule for translations."""

    def judge(self) -> Judge:
        """Judges by the rules for pairs."""
        return _judged_pair


class Perplexity(beam.PTransform):
    """Adds a model's bits per byte to documents, and rejects those above a bound."""

    def __init__(self, measure: BitsPerByte, most: str) -> None:
        """Sets the bound.

        Args:
            measure: the model; picklable, and loaded by the worker that calls it.
            most: the bound, as `config.most_bits_per_byte`.
        """
        super().__init__()
        self._settings = measure, bits_by_language(most)

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `kept` and `rejected`."""
        batches = documents | beam.BatchElements(SCORE_BATCH, 16 * SCORE_BATCH)
        return batches | beam.ParDo(_Scored(*self._settings)).with_outputs(REJECTED, main=KEPT)


class _Scored(beam.DoFn):
    def __init__(self, measure: BitsPerByte, bounds: dict[str, float]) -> None:
        self._measure, self._bounds = measure, bounds

    def process(self, batch: list[RawDocument]) -> Iterator[RawDocument]:
        batch = sorted(batch, key=lambda document: document.language)
        for start in range(0, len(batch), SCORE_BATCH):
            part = batch[start : start + SCORE_BATCH]
            bits = self._measure([d.text for d in part], [d.language for d in part])
            for document, value in zip(part, bits, strict=True):
                scores = {**document.scores, "bits a byte": round(float(value), 4)}
                document = dataclasses.replace(document, scores=scores)
                bound = self._bounds.get(document.language, self._bounds.get("", float("inf")))
                yield outcome_of(
                    document.rejected("perplexity", "high") if value > bound else document
                )


def _judged_url(document: RawDocument, blocked: frozenset[str]) -> RawDocument:
    reason = document.url and bad_url(document.url, blocked)
    return document.rejected("url", reason) if reason else document


def _masked(document: RawDocument) -> RawDocument:
    text, count = mask(document.text, document.language)
    return dataclasses.replace(document, text=text, masked=document.masked + count)


def _without_items(document: RawDocument, items: BenchmarkItems) -> RawDocument:
    found = items.match(document.text)
    return document.rejected("benchmarks", "holds an item") if found else document


def _judged_pair(pair: RawDocument) -> RawDocument:
    source, target = pair.text.split("\t")
    first, second = pair.language.split("-")
    reason = bad_pair(source, target, (first, second))
    return pair.rejected("pairs", reason) if reason else pair
