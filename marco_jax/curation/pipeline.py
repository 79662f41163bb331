"""The curation pipeline: four phases of transforms, each from collections to collections.

A phase takes and returns a dict of PCollections. `documents` and `pairs` pass on to the next phase;
`pieces`, `tallies`, `explained` and `judges` are results, which the last phase writes or the caller
reads. Phases can be chained in one pipeline, or run one after another with their results stored:
see `beam_runs.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from marco_jax.curation import document_stages as stages
from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.boilerplate import SharedLines
from marco_jax.curation.corpus_writer import CollectOutcomes, CountFaults, WriteShards
from marco_jax.curation.document_stages import BitsPerByte
from marco_jax.curation.exact_duplicates import ExactDuplicates, HostCap, PairDuplicates
from marco_jax.curation.near_duplicates import NearDuplicates
from marco_jax.curation.pair_stages import PairSimilarity, Similarity, TrainPairJudges
from marco_jax.curation.record_reading import ReadRecords
from marco_jax.extras import optional

with optional():
    import apache_beam as beam

Collections = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run of curation was asked for; see `curate.curate`.

    `parts` is the number of parts into which documents are divided by key, `final` the folder of
    the corpus, `rejects` that of rejected documents ("" if they are not wanted), and `pieces` keeps
    documents until they are written.
    """

    settings: dict[str, Any]
    files: tuple[str, ...]
    parts: int
    final: str
    rejects: str = ""
    pieces: BlobStore = BlobStore()
    blocked: frozenset[str] = frozenset()
    sample: int = 0
    explain: str = ""
    bits_per_byte: BitsPerByte | None = None
    similarity: Similarity | None = None
    count_tokens: Callable[[str], int] | None = None


class Fates:
    """Collects what became of documents, over the stages of a phase."""

    def __init__(self, job: Job) -> None:
        """Starts empty."""
        self._job = job
        self._found: dict[str, list[Any]] = {"pieces": [], "tallies": [], "explained": []}

    def passed(self, documents: Any, name: str, stage: beam.PTransform) -> Any:
        """Applies a stage; collects what it rejects and returns what it keeps."""
        outputs = documents | name >> stage
        self.collect(outputs.rejected, f"{name}, rejected", bool(self._job.rejects))
        return outputs.kept

    def collect(self, documents: Any, name: str, written: bool) -> None:
        """Collects documents whose fate is decided."""
        job, settings = self._job, self._job.settings
        found = documents | f"{name}, collected" >> CollectOutcomes(
            job.pieces,
            shards=settings["shards"],
            written=written,
            rehydrate=settings["rehydrate"],
            sample=job.sample,
            explain=job.explain,
            count_tokens=job.count_tokens,
        )
        for output, collections in self._found.items():
            collections.append(found[output])

    def add(self, output: str, collection: Any) -> None:
        """Adds a result."""
        self._found[output].append(collection)

    def results(self, name: str) -> Collections:
        """All that was collected, by output."""
        return {
            output: collections | f"{name}, all {output}" >> beam.Flatten()
            for output, collections in self._found.items()
        }


def read_phase(inputs: Collections, job: Job, store: BlobStore) -> Collections:
    """Reads the files, extracts texts, and finds boilerplate lines."""
    outcomes, settings = Fates(job), job.settings
    records = inputs["pipeline"] | "read" >> ReadRecords(job.files, settings["fields"])
    outcomes.add("tallies", records.faults | "count faults" >> CountFaults())
    documents = outcomes.passed(records.documents, "address", stages.UrlRules(job.blocked))
    documents = outcomes.passed(documents, "extraction", stages.ExtractText())
    pairs = outcomes.passed(records.pairs, "pair rules", stages.PairRules())
    found = {"documents": documents, "pairs": pairs}
    if settings["boilerplate_documents"]:
        lines = SharedLines(settings["boilerplate_documents"], store, job.parts)
        found["lines"] = documents | "shared lines" >> lines
    return found | outcomes.results("read")


def judge_phase(inputs: Collections, job: Job, store: BlobStore) -> Collections:
    """Judges each document by itself."""
    outcomes, settings = Fates(job), job.settings
    steps: list[tuple[str, beam.PTransform]] = [
        ("damage", stages.DamageRules()),
        ("language", stages.IdentifyLanguage(settings["languages"], settings["foreign_lines"])),
        ("prose", stages.Heuristics()),
    ]
    if "lines" in inputs:
        steps.insert(0, ("boilerplate", stages.RemoveLines(inputs["lines"])))
    if job.bits_per_byte:
        bound = stages.Perplexity(job.bits_per_byte, settings["most_bits_per_byte"])
        steps.append(("perplexity", bound))
    documents = inputs["documents"]
    for name, stage in steps:
        documents = outcomes.passed(documents, name, stage)
    return {"documents": documents} | outcomes.results("judge")


def compare_phase(inputs: Collections, job: Job, store: BlobStore) -> Collections:
    """Removes what is a copy of something else, and pairs that do not translate one another."""
    outcomes, settings = Fates(job), job.settings
    grouped = {"store": store, "parts": job.parts}
    near = NearDuplicates(settings["near_duplicate"], settings["containment"], **grouped)
    steps: list[tuple[str, beam.PTransform]] = [
        ("exact duplicates", ExactDuplicates(**grouped)),
        ("near duplicates", near),
    ]
    if settings["host_cap"]:
        steps.append(("host cap", HostCap(settings["host_cap"], **grouped)))
    documents, pairs = inputs["documents"], inputs["pairs"]
    for name, stage in steps:
        documents = outcomes.passed(documents, name, stage)
    found = {}
    judges = None
    if job.similarity is None:
        trainer = TrainPairJudges(settings["lexicon_pairs"])
        judges = pairs | "pair judges" >> trainer
        found["judges"] = judges | "kinds of judges" >> beam.Map(_about_judge)
    similar = PairSimilarity(settings["pair_similarity"], judges, job.similarity)
    pairs = outcomes.passed(pairs, "similarity", similar)
    for side, name in enumerate(("sources", "targets")):
        pairs = outcomes.passed(pairs, f"equal {name}", PairDuplicates(side, **grouped))
    return found | {"documents": documents, "pairs": pairs} | outcomes.results("compare")


def finish_phase(inputs: Collections, job: Job, store: BlobStore) -> Collections:
    """Masks personal data, removes benchmark items, and writes the corpus."""
    outcomes, settings = Fates(job), job.settings
    documents = inputs["documents"]
    if settings["mask_personal_data"]:
        documents = documents | "personal data" >> stages.MaskPersonal()
    if settings["benchmarks"]:
        items = stages.Decontaminate(settings["benchmarks"])
        documents = outcomes.passed(documents, "benchmark items", items)
    outcomes.collect(documents, "documents", written=True)
    outcomes.collect(inputs["pairs"], "pairs", written=True)
    found = outcomes.results("finish")
    pieces = [*inputs["pieces"], found.pop("pieces")] | "all pieces" >> beam.Flatten()
    return found | {"shards": pieces | "write" >> WriteShards(job.final, job.pieces, job.rejects)}


def _about_judge(element: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in element[1].items() if name != "judge"}


# In order; each takes the `documents` and `pairs` of those before it.
PHASES: dict[str, Callable[[Collections, Job, BlobStore], Collections]] = {
    "read": read_phase,
    "judge": judge_phase,
    "compare": compare_phase,
    "finish": finish_phase,
}
# Results that are not passed on as documents: small, and of JSON values.
RESULTS = ("tallies", "explained", "judges", "shards")
